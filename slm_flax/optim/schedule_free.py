"""Schedule-free AdamW: averaging instead of a schedule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from slm_core.config import Optim
from slm_flax.optim.adamw import one_minus_power
from slm_flax.optim.base import Groups, OptimState, Transformation, stateful
from slm_flax.params import Params


class Averaging(NamedTuple):
    """The sequence that runs ahead, second moments, the sum of lr^2 so far, and the updates done."""

    z: Params
    v: Params
    weight_sum: Array
    count: Array


def schedule_free(optim: Optim, groups: Groups) -> Transformation:
    """Makes schedule-free AdamW: averages the parameters, so that the learning rate needs no decay.

    Paper: Defazio et al. 2024, https://arxiv.org/abs/2405.15682, algorithm 1.

    The parameters are y, at which gradients are taken. z runs ahead of y. x is a weighted average of z, and is what
    evaluation uses: y = (1 - b1) z + b1 x. With t counting updates from 1:

    v <- b2 v + (1 - b2) g^2;  d = lr_multiplier g / (sqrt(v) / sqrt(1 - b2^t) + eps) + decay y
    c = lr^2 / sum of lr^2 so far;  z <- z - lr d;  x <- (1 - c) x + c z
    so y <- y + c (z - y) - lr (1 - b1 (1 - c)) d, with z before its step

    Algorithm 1 has sqrt(1 - b2^t) and the warm-up inside lr, and so inside c. Here c weighs by the schedule's lr.
    `optax.contrib.schedule_free` weighs by the largest lr so far.

    State: "z/NAME", which begins as a copy of the parameter, and "v/NAME"; "weight_sum" and "count".
    """
    (b1, b2), eps = optim.betas, optim.eps

    def init(params: Params) -> Averaging:
        z = jax.tree.map(jnp.array, params)  # copies: the step donates both
        dtype = next(iter(params.values())).dtype
        return Averaging(z, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), dtype), jnp.zeros((), jnp.int32))

    def update(grads: Params, state: Averaging, params: Params, lr: Array) -> tuple[Params, Averaging]:
        new = Averaging({}, {}, state.weight_sum + jnp.square(lr), state.count + 1)
        c = jnp.square(lr) / new.weight_sum
        correction = jnp.sqrt(one_minus_power(b2, new.count, lr))
        updates = {}
        for name, g in grads.items():
            y, z, group = params[name], state.z[name], groups[name]
            new.v[name] = b2 * state.v[name] + (1 - b2) * jnp.square(g)
            d = group.lr_multiplier * (g / (jnp.sqrt(new.v[name]) / correction + eps)) + group.decay * y
            new.z[name] = z - lr * d
            updates[name] = c * (z - y) - lr * (1 - b1 * (1 - c)) * d
        return updates, new

    return stateful(init, update)


def averaged(optim: Optim, params: Params, state: OptimState) -> Params:
    """Computes x = (y - (1 - b1) z) / b1, the parameters to evaluate and decode with."""
    b1 = optim.betas[0]
    return {name: (p - (1 - b1) * state[f"z/{name}"]) / b1 for name, p in params.items()}
