"""Gradient descent with momentum, Nesterov's or the plain one (Sutskever et al. 2013,
https://proceedings.mlr.press/v28/sutskever13.html), in the form that applies the momentum to gradients and not to
learning rates.

p <- p (1 - lr decay);  m <- mu m + g;  p <- p - lr rate u,  u = g + mu m (nesterov) or m
"""

from collections.abc import Mapping

import torch
from torch import nn

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_torch.optim.base import Optimizer


class SGD(Optimizer):
    parts = ("m",)

    def __init__(self, optim: Optim, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        super().__init__(params, groups)
        self.momentum, self.nesterov = optim.momentum, optim.nesterov

    def update(self, lr: float) -> None:
        self.state["count"] += 1
        grads, m = self.grads(), self.part("m")
        torch._foreach_mul_(m, self.momentum)
        torch._foreach_add_(m, grads)
        if self.nesterov:
            torch._foreach_add_(grads, m, alpha=self.momentum)
        else:
            torch._foreach_copy_(grads, m)
        self.decay(lr)
        self.move(grads, lr)
