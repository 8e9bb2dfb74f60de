"""Optimizers. One class a kind, driven by the names, masks and learning rates that slm_core decides.

Each has `update(lr)`, which reads the gradients, and `export` and `load` of its state by canonical name.
"""

import numpy as np
import torch
from torch import nn

from slm_core.config import Optim
from slm_core.params import decays


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101).

    p <- p (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    """

    def __init__(self, optim: Optim, params: dict[str, nn.Parameter]):
        self.params = params
        groups = [
            {"params": [p for p in params.values() if decays(p.spec, optim) == decayed], "weight_decay": decay}
            for decayed, decay in ((True, optim.weight_decay), (False, 0.0))
        ]
        groups = [group for group in groups if group["params"]]
        self.inner = torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=True)
        for p in params.values():
            moments = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
            self.inner.state[p] = {"step": torch.zeros((), dtype=torch.float32, device=p.device), **moments}

    def update(self, lr: float) -> None:
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()

    def export(self) -> dict[str, torch.Tensor]:
        """Returns {"m/NAME", "v/NAME", "count"}."""
        state = {name: self.inner.state[p] for name, p in self.params.items()}
        m = {f"m/{name}": s["exp_avg"] for name, s in state.items()}
        v = {f"v/{name}": s["exp_avg_sq"] for name, s in state.items()}
        count = next(iter(state.values()))["step"]
        return m | v | {"count": count.to(torch.int32)}

    def load(self, state: dict[str, np.ndarray]) -> None:
        for name, p in self.params.items():
            own = self.inner.state[p]
            own["exp_avg"].copy_(torch.from_numpy(np.array(state[f"m/{name}"])))
            own["exp_avg_sq"].copy_(torch.from_numpy(np.array(state[f"v/{name}"])))
            own["step"].fill_(int(state["count"]))


OPTIMIZERS = {
    "adamw": AdamW,
}


def clip_factor(norm: float, limit: float) -> float:
    """Returns what scales gradients of global norm `norm` down to at most `limit` (0: no limit)."""
    return limit / norm if limit and norm > limit else 1.0
