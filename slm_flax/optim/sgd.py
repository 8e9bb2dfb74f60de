"""Gradient descent with momentum."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from slm_core.config import Optim
from slm_flax.optim.base import Groups, Transformation, by_group, stateful


def sgd(optim: Optim, groups: Groups) -> Transformation:
    """Makes gradient descent with momentum, in Nesterov's form or the classical one, from `optax.trace`.

    Paper: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html. Here the momentum is a sum of
    gradients, not of steps.

    p <- p (1 - lr decay);  m <- mu m + g;  p <- p - lr lr_multiplier u,  u = g + mu m (nesterov) or m

    State: "m/NAME", of the parameter's shape; "count".
    """
    return optax.chain(optax.trace(optim.momentum, optim.nesterov), _counted(), by_group(groups))


class _Count(NamedTuple):
    count: Array


def _counted() -> optax.GradientTransformationExtraArgs:
    """Counts updates, which optax's momentum does not."""
    return stateful(
        lambda params: _Count(jnp.zeros((), jnp.int32)),
        lambda grads, state, params, lr: (grads, _Count(state.count + 1)),
    )
