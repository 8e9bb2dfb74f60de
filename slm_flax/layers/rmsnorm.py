"""Root mean square normalisation, and the learned scale that it shares with LayerNorm."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Norm
from slm_core.model.initialization import NORM_WEIGHT
from slm_flax.numerics import wide
from slm_flax.params import declare


class RMSNorm(nnx.Module):
    """Divides each vector by its root mean square (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

        y = x / sqrt(mean(x^2) + eps) * weight

    Statistics are float32 or wider.

    Args:
      width: size of the last axis.
      norm: gives eps and the form of the weight.
    """

    def __init__(self, width: int, norm: Norm):
        self.weight = norm_weight(width, norm)
        self.form, self.eps = norm.weight, norm.eps

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Normalises `x`, and keeps its dtype."""
        y = self.normalised(x.astype(wide(x.dtype)))
        scale = norm_scale(self.weight, self.form)
        return (y if scale is None else y * scale).astype(x.dtype)

    def normalised(self, y: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Divides by the root mean square."""
        return y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)


class GroupedRMSNorm(RMSNorm):
    """RMSNorm of each of `groups` equal parts of a vector by itself (Dao and Gu 2024, section 8.2)."""

    def __init__(self, width: int, norm: Norm, groups: int):
        super().__init__(width, norm)
        self.groups = groups

    def normalised(self, y: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Divides each part by its root mean square."""
        return super().normalised(y.reshape(*y.shape[:-1], self.groups, -1)).reshape(y.shape)


def norm_weight(width: int, norm: Norm) -> nnx.Param | None:
    """Declares the weight of a norm, or None if norm.weight is "none" (OLMo, https://arxiv.org/abs/2402.00838)."""
    return None if norm.weight == "none" else declare((width,), NORM_WEIGHT[norm.weight])


def norm_scale(weight: nnx.Param | None, form: str) -> Array | None:
    """Computes the factor of the normalised vector.

    Args:
      weight: w, or None.
      form: norm.weight: w itself, 1 + w ("one_plus"; Gemma, https://arxiv.org/abs/2403.08295), or none.
    """
    if weight is None:
        return None
    return 1 + weight[...] if form == "one_plus" else weight[...]
