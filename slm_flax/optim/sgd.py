"""Gradient descent with momentum, Nesterov's or the plain one (Sutskever et al. 2013,
https://proceedings.mlr.press/v28/sutskever13.html), in the form that applies the momentum to gradients and not to
learning rates.

p <- p (1 - lr decay);  m <- mu m + g;  p <- p - lr rate u,  u = g + mu m (nesterov) or m
"""

from collections.abc import Mapping

from jax import Array

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params


class SGD(Optimizer):
    parts = ("m",)

    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.momentum, self.nesterov = optim.momentum, optim.nesterov

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        updated, new = {}, {"count": state["count"] + 1}
        for name, g in grads.items():
            m = self.momentum * state[f"m/{name}"] + g
            u = g + self.momentum * m if self.nesterov else m
            updated[name] = self.moved(name, params[name], u, lr)
            new[f"m/{name}"] = m
        return updated, new
