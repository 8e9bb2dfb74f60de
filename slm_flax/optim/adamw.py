"""Adam with decoupled weight decay."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from slm_core.config import Optim
from slm_flax.optim.base import Groups, Transformation, by_group, stateful


def adamw(optim: Optim, groups: Groups) -> Transformation:
    """Makes Adam with decoupled weight decay, from optax's moments.

    Paper: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    p <- p (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr lr_multiplier / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    State: "m/NAME" and "v/NAME", of the parameter's shape; "count".
    """
    return optax.chain(scale_by_adam(optim), by_group(groups))


def scale_by_adam(optim: Optim) -> optax.GradientTransformationExtraArgs:
    """Turns gradients into the directions of Adam, with the state of `optax.scale_by_adam`."""
    b1, b2 = optim.betas

    def update(grads: Any, state: Any, params: Any, lr: Array) -> tuple[Any, Any]:
        m = optax.tree.update_moment(grads, state.mu, b1, 1)
        v = optax.tree.update_moment(grads, state.nu, b2, 2)
        count = state.count + 1
        # optax.tree.bias_correction computes 1 - beta^t in float32, which loses digits while beta^t is near 1.
        corrections = [one_minus_power(beta, count, lr) for beta in optim.betas]
        directions = jax.tree.map(lambda m, v: direction(m, v, corrections, optim.eps), m, v)
        return directions, optax.ScaleByAdamState(count, m, v)

    return stateful(optax.scale_by_adam(b1, b2).init, update)


def direction(m: Array, v: Array, corrections: Sequence[Array], eps: float) -> Array:
    """Computes m / (1 - b1^t) / (sqrt(v) / sqrt(1 - b2^t) + eps); `corrections` are 1 - b1^t and 1 - b2^t."""
    return m / corrections[0] / (jnp.sqrt(v) / jnp.sqrt(corrections[1]) + eps)


def one_minus_power(base: float, count: Array, like: Array) -> Array:
    """Computes 1 - base^count by expm1, which keeps float32's digits if base^count is near 1."""
    return -jnp.expm1(count.astype(like.dtype) * (math.log(base) if base else -math.inf))
