"""The learned scale of a norm."""

from flax import nnx
from jax import Array

from slm_core.config import Norm
from slm_core.model.initialization import NORM_WEIGHT
from slm_flax.params import declare


def norm_weight(width: int, norm: Norm) -> nnx.Param | None:
    """Declares the weight of a norm, or None if norm.weight is "none" (OLMo, https://arxiv.org/abs/2402.00838)."""
    return None if norm.weight == "none" else declare((width,), NORM_WEIGHT[norm.weight])


def norm_scale(weight: nnx.Param | None, form: str) -> Array | None:
    """Returns the factor of the normalised vector.

    Args:
      form: norm.weight: w itself, 1 + w ("one_plus"; Gemma, https://arxiv.org/abs/2403.08295), or none.
    """
    if weight is None:
        return None
    return 1 + weight[...] if form == "one_plus" else weight[...]
