"""Adafactor: second moments kept as one row and one column."""

from typing import Any

from torch import Tensor

from slm_core.config import Optim
from slm_torch.optim.base import Groups, Optimizer, Params, decay


class Adafactor(Optimizer):
    """Adafactor: divides gradients by second moments that a matrix keeps as one row and one column.

    Paper: Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, algorithms 4 to 6. There is no momentum, and the
    schedule gives the learning rate.

    s = t^-decay_power;  q = g^2 + 1e-30
    matrices: row <- (1 - s) row + s mean(q over out);  col <- (1 - s) col + s mean(q over in);
    v = row col / mean(row)
    vectors:  v <- (1 - s) v + s q
    u = g / sqrt(v);  u <- u / max(1, rms(u) / clip_rms)
    p <- p (1 - lr decay) - lr lr_multiplier max(min_rms, rms(p)) u, with p in rms(p) before its decay

    `torch.optim.Adafactor` replaces lr by min(lr, 1 / sqrt(t)), and uses 1e-30 as a lower bound.

    State, by canonical name: "row/NAME" [..., in] and "col/NAME" [..., out], or "v/NAME" of a vector's shape; "count".
    """

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        super().__init__(params, groups)
        self.power, self.clip_rms, self.min_rms, self.eps = optim.decay_power, optim.clip_rms, optim.min_rms, 1e-30
        for p in params.values():
            shapes = {"row": p.shape[:-1], "col": p.shape[:-2] + p.shape[-1:]} if p.ndim >= 2 else {"v": p.shape}
            self.state[p] = {part: p.new_zeros(shape) for part, shape in shapes.items()}

    def update(self) -> None:
        """Does one update, by the formula of the class."""
        share = float(self.shared["count"]) ** -self.power
        for group in self.updated_groups:
            sizes = [rms(p).clamp(min=self.min_rms) for p in group["params"]]
            decay(group)
            for p, size in zip(group["params"], sizes, strict=True):
                u = p.grad * self.inverse_root(self.state[p], p.grad.square() + self.eps, share)
                u = u / (rms(u) / self.clip_rms).clamp(min=1)
                p.sub_(u * size, alpha=group["lr"])

    def inverse_root(self, state: dict[str, Any], square: Tensor, share: float) -> Tensor:
        """Adds the squared gradient to a parameter's state, and computes 1 / sqrt(v)."""
        if square.ndim < 2:
            return state["v"].lerp_(square, share).rsqrt()
        row = state["row"].lerp_(square.mean(-1), share)
        col = state["col"].lerp_(square.mean(-2), share)
        # Root by root: the product of two small means would be 0 in float32.
        return (row / row.mean(-1, keepdim=True)).rsqrt()[..., :, None] * col.rsqrt()[..., None, :]


def rms(x: Tensor) -> Tensor:
    """Computes the root mean square of all values of a tensor."""
    return x.square().mean().sqrt()
