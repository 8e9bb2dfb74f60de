"""Relative position bias (Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1).

    score[h, p, c] += weight[bucket(p - c), h]

The buckets are in `slm_core.model.positions`. Each layer has a table of its own (T5 itself shares one).
"""

import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import Spec
from slm_core.model.positions import t5_buckets
from slm_flax.params import declare


class T5Bias(nnx.Module):
    site = "scores"

    def __init__(self, layer: LayerSpec, context: int):
        position = layer.position
        self.weight = declare((position.buckets, layer.attention.n_heads), Spec("scalar", std=layer.init_std))
        self.bucket = t5_buckets(position.buckets, position.max_distance, context)

    def __call__(self, dtype: np.dtype) -> Float[Array, "heads distances"]:
        return self.weight[self.bucket].T.astype(dtype)
