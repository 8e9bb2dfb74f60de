"""Clipping by the global norm of the gradients (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063)."""

import jax.numpy as jnp
from jax import Array


def clip_factor(norm: Array, limit: float) -> Array:
    """Returns what scales gradients of global norm `norm` down to at most `limit` (0: no limit)."""
    return jnp.where(norm > limit, limit / norm, 1) if limit else jnp.ones_like(norm)
