"""What every optimizer is made of: groups, and a state by name that a checkpoint can hold."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.params import Params

OptimState = dict[str, Array]


class Optimizer:
    """A kind names its `parts` and defines a pure `update(grads, state, params, lr)`.

    The state is {"PART/NAME": array}, of the parameters' shapes and dtype, and "count", the updates done.
    """

    parts: tuple[str, ...] = ()
    averages = False  # whether `evaluated` gives other parameters to evaluate and decode with than those that it trains

    def __init__(self, groups: Mapping[str, ParameterGroup]):
        self.groups = groups

    def init(self, params: Params) -> OptimState:
        state = {f"{part}/{name}": jnp.zeros_like(p) for part in self.parts for name, p in params.items()}
        return state | {"count": jnp.zeros((), jnp.int32)}

    def moved(self, name: str, p: Array, step: Array, lr: Array) -> Array:
        """Returns p (1 - lr decay) - lr rate step."""
        group = self.groups[name]
        return p * (1 - lr * group.decay) - lr * group.lr_multiplier * step
