"""Lion, the sign of an interpolated momentum (Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2).

u = sign(b1 m + (1 - b1) g);  p <- p (1 - lr decay);  p <- p - lr rate u;  m <- b2 m + (1 - b2) g
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params


class Lion(Optimizer):
    parts = ("m",)

    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.betas = optim.betas

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        b1, b2 = self.betas
        updated, new = {}, {"count": state["count"] + 1}
        for name, g in grads.items():
            m = state[f"m/{name}"]
            u = jnp.sign(b1 * m + (1 - b1) * g)
            updated[name] = self.moved(name, params[name], u, lr)
            new[f"m/{name}"] = b2 * m + (1 - b2) * g
        return updated, new
