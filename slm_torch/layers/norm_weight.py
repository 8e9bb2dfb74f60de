"""The learned scale of a norm: times w, times 1 + w (Gemma, https://arxiv.org/abs/2403.08295), or none (OLMo,
https://arxiv.org/abs/2402.00838)."""

from torch import Tensor, nn

from slm_core.config import Norm
from slm_core.model.initialization import NORM_WEIGHT
from slm_torch.params import declare


def norm_weight(width: int, norm: Norm) -> nn.Parameter | None:
    """Declares the weight of a norm."""
    return None if norm.weight == "none" else declare((width,), NORM_WEIGHT[norm.weight])


def norm_scale(weight: Tensor | None, form: str) -> Tensor | None:
    """Returns what the normalised vector is multiplied by; `form` is norm.weight."""
    return 1 + weight if form == "one_plus" else weight
