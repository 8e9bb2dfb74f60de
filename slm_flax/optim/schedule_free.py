"""Schedule-free AdamW (Defazio et al. 2024, https://arxiv.org/abs/2405.15682, algorithm 1).

Parameters are y, where gradients are taken; z runs ahead of them, and x, their weighted average, is what to evaluate:
y = (1 - b1) z + b1 x. With t counting updates from 1:

v <- b2 v + (1 - b2) g^2;  d = rate g / (sqrt(v) / sqrt(1 - b2^t) + eps) + decay y
c = lr^2 / sum of lr^2 so far;  z <- z - lr d;  x <- (1 - c) x + c z
so y <- y + c (z - y) - lr (1 - b1 (1 - c)) d, with z before its step

Algorithm 1 has sqrt(1 - b2^t) and the warm-up inside lr, and so inside c: here c weighs by the schedule's rate alone.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim.adamw import one_minus_power
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params


class ScheduleFree(Optimizer):
    parts = ("z", "v")
    averages = True

    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.betas, self.eps = optim.betas, optim.eps

    def init(self, params: Params) -> OptimState:
        z = {f"z/{name}": jnp.array(p) for name, p in params.items()}  # copies: the step donates both
        dtype = next(iter(params.values())).dtype
        return super().init(params) | z | {"weight_sum": jnp.zeros((), dtype)}

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        b1, b2 = self.betas
        count, weight_sum = state["count"] + 1, state["weight_sum"] + jnp.square(lr)
        c = jnp.square(lr) / weight_sum
        correction = jnp.sqrt(one_minus_power(b2, count, lr))
        updated, new = {}, {"count": count, "weight_sum": weight_sum}
        for name, g in grads.items():
            y, z, group = params[name], state[f"z/{name}"], self.groups[name]
            v = b2 * state[f"v/{name}"] + (1 - b2) * jnp.square(g)
            d = group.lr_multiplier * (g / (jnp.sqrt(v) / correction + self.eps)) + group.decay * y
            updated[name] = y + c * (z - y) - lr * (1 - b1 * (1 - c)) * d
            new |= {f"z/{name}": z - lr * d, f"v/{name}": v}
        return updated, new

    def evaluated(self, params: Params, state: OptimState) -> Params:
        """Returns x, the parameters to evaluate and decode with."""
        b1 = self.betas[0]
        return {name: (p - (1 - b1) * state[f"z/{name}"]) / b1 for name, p in params.items()}
