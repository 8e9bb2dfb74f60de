"""Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101).

p <- p (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
p <- p - lr rate / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params


class AdamW(Optimizer):
    parts = ("m", "v")

    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.betas, self.eps = optim.betas, optim.eps

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        b1, b2 = self.betas
        count = state["count"] + 1
        correction1, correction2 = one_minus_power(b1, count, lr), jnp.sqrt(one_minus_power(b2, count, lr))
        updated, new = {}, {"count": count}
        for name, g in grads.items():
            m = b1 * state[f"m/{name}"] + (1 - b1) * g
            v = b2 * state[f"v/{name}"] + (1 - b2) * jnp.square(g)
            group = self.groups[name]
            decayed = params[name] * (1 - lr * group.decay)
            updated[name] = decayed - lr * group.lr_multiplier / correction1 * m / (
                jnp.sqrt(v) / correction2 + self.eps
            )
            new |= {f"m/{name}": m, f"v/{name}": v}
        return updated, new


def one_minus_power(base: float, count: Array, like: Array) -> Array:
    """Returns 1 - base^count by expm1, which keeps float32's digits where base^count is near 1."""
    return -jnp.expm1(count.astype(like.dtype) * (math.log(base) if base else -math.inf))
