"""Adafactor, second moments kept as one row and one column (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235,
algorithms 4 to 6), without momentum, its learning rate given from outside.

s = t^-decay_power;  q = g^2 + 1e-30
matrices: row <- (1 - s) row + s mean(q over out);  col <- (1 - s) col + s mean(q over in);  v = row col / mean(row)
vectors:  v <- (1 - s) v + s q
u = g / sqrt(v);  u <- u / max(1, rms(u) / clip_rms)
p <- p (1 - lr decay) - lr rate max(min_rms, rms(p)) u, with p in rms(p) before its decay
"""

from collections.abc import Mapping

from torch import Tensor, nn

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_torch.optim.base import Optimizer


class Adafactor(Optimizer):
    def __init__(self, optim: Optim, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        super().__init__(params, groups)
        self.power, self.clip_rms, self.min_rms, self.eps = optim.decay_power, optim.clip_rms, optim.min_rms, 1e-30
        for name, p in params.items():
            shapes = {"row": p.shape[:-1], "col": p.shape[:-2] + p.shape[-1:]} if p.ndim >= 2 else {"v": p.shape}
            self.state |= {f"{part}/{name}": p.new_zeros(shape) for part, shape in shapes.items()}

    def update(self, lr: float) -> None:
        self.state["count"] += 1
        share = float(self.state["count"]) ** -self.power
        sizes = [rms(p).clamp(min=self.min_rms) for p in self.params.values()]
        self.decay(lr)
        for (name, p), rate, size in zip(self.params.items(), self.lr_multipliers, sizes, strict=True):
            u = p.grad * self.inverse_root(name, p.grad.square() + self.eps, share)
            u = u / (rms(u) / self.clip_rms).clamp(min=1)
            p.sub_(u * size, alpha=lr * rate)

    def inverse_root(self, name: str, square: Tensor, share: float) -> Tensor:
        """Takes the squared gradient into the state and returns 1 / sqrt(v)."""
        if square.ndim < 2:
            return self.state[f"v/{name}"].lerp_(square, share).rsqrt()
        row = self.state[f"row/{name}"].lerp_(square.mean(-1), share)
        col = self.state[f"col/{name}"].lerp_(square.mean(-2), share)
        # Root by root: the product of two small means would be 0 in float32.
        return (row / row.mean(-1, keepdim=True)).rsqrt()[..., :, None] * col.rsqrt()[..., None, :]


def rms(x: Tensor) -> Tensor:
    """Returns the root mean square of a whole tensor."""
    return x.square().mean().sqrt()
