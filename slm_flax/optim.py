"""Optimizers. One class a kind, driven by the names, masks and learning rates that slm_core decides.

Each has `init(params)` and a pure `update(grads, state, params, lr)`; the state holds entries by canonical name.
"""

import math

import jax.numpy as jnp
from jax import Array

from slm_core.config import Optim
from slm_core.params import Spec, decays
from slm_flax.params import Params

OptimState = dict[str, Array]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101).

    p <- p (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    """

    def __init__(self, optim: Optim, specs: dict[str, Spec]):
        self.betas, self.eps = optim.betas, optim.eps
        self.decay = {name: optim.weight_decay if decays(spec, optim) else 0.0 for name, spec in specs.items()}

    def init(self, params: Params) -> OptimState:
        """Returns {"m/NAME", "v/NAME", "count"}."""
        m = {f"m/{name}": jnp.zeros_like(p) for name, p in params.items()}
        v = {f"v/{name}": jnp.zeros_like(p) for name, p in params.items()}
        return m | v | {"count": jnp.zeros((), jnp.int32)}

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        """Returns the updated parameters and state."""
        b1, b2 = self.betas
        count = state["count"] + 1
        correction1, correction2 = _one_minus_power(b1, count, lr), jnp.sqrt(_one_minus_power(b2, count, lr))
        updated, moments = {}, {"count": count}
        for name, g in grads.items():
            m = b1 * state[f"m/{name}"] + (1 - b1) * g
            v = b2 * state[f"v/{name}"] + (1 - b2) * jnp.square(g)
            decayed = params[name] * (1 - lr * self.decay[name])
            updated[name] = decayed - lr / correction1 * m / (jnp.sqrt(v) / correction2 + self.eps)
            moments |= {f"m/{name}": m, f"v/{name}": v}
        return updated, moments


OPTIMIZERS = {
    "adamw": AdamW,
}


def clip_factor(norm: Array, limit: float) -> Array:
    """Returns what scales gradients of global norm `norm` down to at most `limit` (0: no limit)."""
    return jnp.where(norm > limit, limit / norm, 1) if limit else jnp.ones_like(norm)


def _one_minus_power(base: float, count: Array, like: Array) -> Array:
    """Returns 1 - base^count by expm1, which keeps float32's digits where base^count is near 1."""
    return -jnp.expm1(count.astype(like.dtype) * (math.log(base) if base else -math.inf))
