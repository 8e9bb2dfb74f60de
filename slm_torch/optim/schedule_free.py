"""Schedule-free AdamW (Defazio et al. 2024, https://arxiv.org/abs/2405.15682, algorithm 1).

Parameters are y, where gradients are taken; z runs ahead of them, and x, their weighted average, is what to evaluate:
y = (1 - b1) z + b1 x. With t counting updates from 1:

v <- b2 v + (1 - b2) g^2;  d = rate g / (sqrt(v) / sqrt(1 - b2^t) + eps) + decay y
c = lr^2 / sum of lr^2 so far;  z <- z - lr d;  x <- (1 - c) x + c z
so y <- y + c (z - y) - lr (1 - b1 (1 - c)) d, with z before its step

Algorithm 1 has sqrt(1 - b2^t) and the warm-up inside lr, and so inside c: here c weighs by the schedule's rate alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_torch.optim.base import Optimizer


class ScheduleFree(Optimizer):
    parts = ("z", "v")
    averages = True

    def __init__(self, optim: Optim, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        super().__init__(params, groups)
        self.betas, self.eps = optim.betas, optim.eps
        for name, p in params.items():
            self.state[f"z/{name}"].copy_(p.detach())
        dtype = next(iter(params.values())).dtype
        self.state["weight_sum"] = torch.zeros((), dtype=dtype)

    def update(self, lr: float) -> None:
        self.state["count"] += 1
        self.state["weight_sum"] += lr**2
        b1, b2 = self.betas
        c = lr**2 / float(self.state["weight_sum"])
        correction = (1 - b2 ** int(self.state["count"])) ** 0.5
        y, z, v, d = list(self.params.values()), self.part("z"), self.part("v"), self.grads()
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, d, d, value=1 - b2)
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, correction)
        torch._foreach_add_(root, self.eps)
        torch._foreach_div_(d, root)
        torch._foreach_mul_(d, self.lr_multipliers)
        del root
        for i, decay in enumerate(self.decays):
            if decay:
                d[i].add_(y[i], alpha=decay)
        torch._foreach_lerp_(y, z, c)
        torch._foreach_add_(y, d, alpha=-lr * (1 - b1 * (1 - c)))
        torch._foreach_add_(z, d, alpha=-lr)

    def evaluated(self) -> dict[str, Tensor]:
        """Returns x, the parameters to evaluate and decode with."""
        b1 = self.betas[0]
        return {name: (p.detach() - (1 - b1) * self.state[f"z/{name}"]) / b1 for name, p in self.params.items()}
