"""Lion, the sign of an interpolated momentum (Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2).

u = sign(b1 m + (1 - b1) g);  p <- p (1 - lr decay);  p <- p - lr rate u;  m <- b2 m + (1 - b2) g
"""

from collections.abc import Mapping

import torch
from torch import nn

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_torch.optim.base import Optimizer


class Lion(Optimizer):
    parts = ("m",)

    def __init__(self, optim: Optim, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        super().__init__(params, groups)
        self.betas = optim.betas

    def update(self, lr: float) -> None:
        self.state["count"] += 1
        b1, b2 = self.betas
        grads, m = self.grads(), self.part("m")
        u = torch._foreach_mul(m, b1)
        torch._foreach_add_(u, grads, alpha=1 - b1)
        torch._foreach_sign_(u)
        torch._foreach_mul_(m, b2)
        torch._foreach_add_(m, grads, alpha=1 - b2)
        self.decay(lr)
        self.move(u, lr)
