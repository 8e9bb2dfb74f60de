"""Gradient descent with momentum."""

import torch

from slm_core.config import Optim
from slm_torch.optim.base import Groups, Optimizer, Params, decay, grads


class SGD(Optimizer):
    """Gradient descent with momentum, in Nesterov's form or the classical one.

    Paper: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html. Here the momentum is a sum of
    gradients, not of steps.

    p <- p (1 - lr decay);  m <- mu m + g;  p <- p - lr lr_multiplier u,  u = g + mu m (nesterov) or m

    `torch.optim.SGD` adds the weight decay to the gradient, and so to the momentum.

    State, by canonical name: "m/NAME", of the parameter's shape; "count".
    """

    parts = ("m",)

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        super().__init__(params, groups)
        self.momentum, self.nesterov = optim.momentum, optim.nesterov

    def update(self) -> None:
        """Does one update, by the formula of the class."""
        for group in self.updated_groups:
            g, m = grads(group), self.part(group, "m")
            torch._foreach_mul_(m, self.momentum)
            torch._foreach_add_(m, g)
            if self.nesterov:
                torch._foreach_add_(g, m, alpha=self.momentum)
            decay(group)
            torch._foreach_add_(group["params"], g if self.nesterov else m, alpha=-group["lr"])
