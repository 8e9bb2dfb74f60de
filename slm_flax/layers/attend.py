"""Softmax attention over given queries, keys and values."""

from collections.abc import Callable

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import SCALAR
from slm_flax.layers.documents import Documents
from slm_flax.numerics import wide
from slm_flax.params import declare


class Attend(nnx.Module):
    """Calls the attention kernel with everything that acts on scores.

    The position may add a bias by distance. The config may add a soft-cap (Gemma 2, https://arxiv.org/abs/2408.00118),
    learned sinks (gpt-oss, https://arxiv.org/abs/2508.10925) and a window, which limits how far back a query sees.
    `dot_product` has the formula.

    Args:
      layer: gives the scale, the window, the soft-cap and the number of sinks.
      kernel: computes softmax attention: a value of `KERNEL`.
      bias: a position that acts on scores, or None.
    """

    def __init__(self, layer: LayerSpec, kernel: Callable[..., Array], bias: nnx.Module | None):
        attention = layer.attention
        self.kernel = kernel
        self.bias = bias
        self.sinks = declare((attention.n_heads,), SCALAR) if attention.sinks else None
        self.options = dict(scale=attention.scale, window=attention.window, softcap=attention.softcap)

    def __call__(
        self,
        q: Float[Array, "batch time heads head_dim"],
        k: Float[Array, "batch keys kv_heads head_dim"],
        v: Float[Array, "batch keys kv_heads v_dim"],
        start: int | Array,
        keys_start: int | Array,
        documents: Documents | None = None,
    ) -> Float[Array, "batch time heads v_dim"]:
        """Attends from positions start, start + 1, ... to keys at keys_start, keys_start + 1, ... within documents."""
        bias = None if self.bias is None else self.bias(wide(q.dtype))
        sinks = None if self.sinks is None else self.sinks[...]
        options = dict(start=start, keys_start=keys_start, bias=bias, sinks=sinks, **self.options)
        if documents is not None:
            options["documents"] = documents.numbers
        return self.kernel(q, k, v, **options)
