"""Schedule-free AdamW: averaging instead of a schedule."""

from collections.abc import Mapping

import torch
from torch import Tensor

from slm_core.config import Optim
from slm_torch.optim.base import Groups, Optimizer, Params, grads


class ScheduleFree(Optimizer):
    """Schedule-free AdamW: averages the parameters, so that the learning rate needs no decay.

    Paper: Defazio et al. 2024, https://arxiv.org/abs/2405.15682, algorithm 1. PyTorch lacks this optimizer.

    The parameters are y, at which gradients are taken. z runs ahead of y. x is a weighted average of z, and is what
    evaluation uses: y = (1 - b1) z + b1 x. With t counting updates from 1:

    v <- b2 v + (1 - b2) g^2;  d = lr_multiplier g / (sqrt(v) / sqrt(1 - b2^t) + eps) + decay y
    c = lr^2 / sum of lr^2 so far;  z <- z - lr d;  x <- (1 - c) x + c z
    so y <- y + c (z - y) - lr (1 - b1 (1 - c)) d, with z before its step

    Algorithm 1 has sqrt(1 - b2^t) and the warm-up inside lr, and so inside c. Here c weighs by the schedule's lr.

    State, by canonical name: "z/NAME", which begins as a copy of the parameter, and "v/NAME"; "weight_sum" and "count".
    """

    parts = ("z", "v")

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        super().__init__(params, groups)
        self.betas, self.eps = optim.betas, optim.eps
        for p in params.values():
            self.state[p]["z"].copy_(p.detach())
        self.shared["weight_sum"] = torch.zeros((), dtype=next(iter(params.values())).dtype)

    def update(self) -> None:
        """Does one update, by the formula of the class."""
        b1, b2 = self.betas
        first = self.updated_groups[0]
        lr = first["lr"] / first["lr_multiplier"]
        self.shared["weight_sum"] += lr**2
        c = lr**2 / float(self.shared["weight_sum"])
        correction = (1 - b2 ** int(self.shared["count"])) ** 0.5
        for group in self.updated_groups:
            y, z, v, d = group["params"], self.part(group, "z"), self.part(group, "v"), grads(group)
            torch._foreach_mul_(v, b2)
            torch._foreach_addcmul_(v, d, d, value=1 - b2)
            root = torch._foreach_sqrt(v)
            torch._foreach_div_(root, correction)
            torch._foreach_add_(root, self.eps)
            torch._foreach_div_(d, root)
            del root
            if group["weight_decay"]:
                torch._foreach_add_(d, y, alpha=group["weight_decay"])
            torch._foreach_lerp_(y, z, c)
            torch._foreach_add_(y, d, alpha=-group["lr"] * (1 - b1 * (1 - c)))
            torch._foreach_add_(z, d, alpha=-group["lr"])


def averaged(optim: Optim, params: Params, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Computes x = (y - (1 - b1) z) / b1, the parameters to evaluate and decode with."""
    b1 = optim.betas[0]
    return {name: (p.detach() - (1 - b1) * state[f"z/{name}"]) / b1 for name, p in params.items()}
