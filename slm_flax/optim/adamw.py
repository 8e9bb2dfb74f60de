"""Adam with decoupled weight decay."""

import math

import jax.numpy as jnp
import optax
from jax import Array

from slm_core.config import Optim
from slm_flax.optim.base import Groups, Transformation, by_group


def adamw(optim: Optim, groups: Groups) -> Transformation:
    """Returns Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), optax's.

    p <- p (1 - lr decay);  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p - lr lr_multiplier / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    State: "m/NAME" and "v/NAME", of the parameter's shape; "count".
    """
    return optax.chain(optax.scale_by_adam(*optim.betas, optim.eps), by_group(groups))


def one_minus_power(base: float, count: Array, like: Array) -> Array:
    """Returns 1 - base^count by expm1, which keeps float32's digits if base^count is near 1."""
    return -jnp.expm1(count.astype(like.dtype) * (math.log(base) if base else -math.inf))
