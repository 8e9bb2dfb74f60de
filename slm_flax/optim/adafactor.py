"""Adafactor, second moments kept as one row and one column (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235,
algorithms 4 to 6), without momentum, its learning rate given from outside.

s = t^-decay_power;  q = g^2 + 1e-30
matrices: row <- (1 - s) row + s mean(q over out);  col <- (1 - s) col + s mean(q over in);  v = row col / mean(row)
vectors:  v <- (1 - s) v + s q
u = g / sqrt(v);  u <- u / max(1, rms(u) / clip_rms)
p <- p (1 - lr decay) - lr rate max(min_rms, rms(p)) u, with p in rms(p) before its decay
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array, lax

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params


class Adafactor(Optimizer):
    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.power, self.clip_rms, self.min_rms, self.eps = optim.decay_power, optim.clip_rms, optim.min_rms, 1e-30

    def init(self, params: Params) -> OptimState:
        state = super().init(params)
        for name, p in params.items():
            shapes = {"row": p.shape[:-1], "col": p.shape[:-2] + p.shape[-1:]} if p.ndim >= 2 else {"v": p.shape}
            state |= {f"{part}/{name}": jnp.zeros(shape, p.dtype) for part, shape in shapes.items()}
        return state

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        count = state["count"] + 1
        share = count.astype(lr.dtype) ** -self.power
        updated, new = {}, {"count": count}
        for name, g in grads.items():
            p = params[name]
            root, moments = self.inverse_root(name, jnp.square(g) + self.eps, share, state)
            u = g * root
            u = u / jnp.maximum(rms(u) / self.clip_rms, 1)
            updated[name] = self.moved(name, p, u * jnp.maximum(rms(p), self.min_rms), lr)
            new |= moments
        return updated, new

    def inverse_root(self, name: str, square: Array, share: Array, state: OptimState) -> tuple[Array, OptimState]:
        """Returns 1 / sqrt(v) and the state after this squared gradient."""
        if square.ndim < 2:
            v = state[f"v/{name}"]
            v = v + share * (square - v)
            return lax.rsqrt(v), {f"v/{name}": v}
        row, col = state[f"row/{name}"], state[f"col/{name}"]
        row = row + share * (square.mean(-1) - row)
        col = col + share * (square.mean(-2) - col)
        # Root by root: the product of two small means would be 0 in float32.
        root = lax.rsqrt(row / row.mean(-1, keepdims=True))[..., :, None] * lax.rsqrt(col)[..., None, :]
        return root, {f"row/{name}": row, f"col/{name}": col}


def rms(x: Array) -> Array:
    """Returns the root mean square of a whole array."""
    return jnp.sqrt(jnp.mean(jnp.square(x)))
