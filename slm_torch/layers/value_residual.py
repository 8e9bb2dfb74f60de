"""Value residual (Zhou et al. 2024, https://arxiv.org/abs/2410.17897, with learned weights).

v' = a v + b v_1,  v_1 the values of the first layer, a and b starting at 1/2
"""

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import HALF
from slm_torch.params import declare


class ValueResidual(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = declare((2,), HALF)

    def forward(
        self, v: Float[Tensor, "batch time heads head_dim"], first: Float[Tensor, "batch time heads head_dim"]
    ) -> Float[Tensor, "batch time heads head_dim"]:
        own, others = self.weight.to(v.dtype).unbind()
        return own * v + others * first


def value_residual(layer: LayerSpec, index: int) -> ValueResidual | None:
    """Returns the mixing of layer `index`; None in the first, and where the config has none."""
    return ValueResidual() if layer.attention.value_residual and index else None
