"""Adam with decoupled weight decay."""

import torch

from slm_core.config import Optim
from slm_torch.optim.base import Groups, Params, param_groups


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay, by PyTorch's fused kernel, the fastest measured.

    Paper: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    p <- p (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr lr_multiplier / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    State, by canonical name: "m/NAME" and "v/NAME", of the parameter's shape; "count".
    """

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        super().__init__(param_groups(params, groups), lr=0.0, betas=optim.betas, eps=optim.eps, fused=True)
        for p in params.values():  # as the first update would make it
            step = torch.zeros((), dtype=torch.float32, device=p.device)
            self.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
