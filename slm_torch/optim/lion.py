"""Lion, the sign of an interpolated momentum."""

import torch

from slm_core.config import Optim
from slm_torch.optim.base import Groups, Optimizer, Params, decay, grads


class Lion(Optimizer):
    """Lion: steps by the sign of an interpolated momentum.

    Paper: Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2. PyTorch lacks this optimizer.

    u = sign(b1 m + (1 - b1) g);  p <- p (1 - lr decay);  p <- p - lr lr_multiplier u;  m <- b2 m + (1 - b2) g

    State, by canonical name: "m/NAME", of the parameter's shape; "count".
    """

    parts = ("m",)

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        super().__init__(params, groups)
        self.betas = optim.betas

    def update(self) -> None:
        """Does one update, by the formula of the class."""
        b1, b2 = self.betas
        for group in self.updated_groups:
            g, m = grads(group), self.part(group, "m")
            u = torch._foreach_mul(m, b1)
            torch._foreach_add_(u, g, alpha=1 - b1)
            torch._foreach_sign_(u)
            torch._foreach_mul_(m, b2)
            torch._foreach_add_(m, g, alpha=1 - b2)
            decay(group)
            torch._foreach_add_(group["params"], u, alpha=-group["lr"])
            del u  # the next group needs its room
