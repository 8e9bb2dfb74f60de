"""Adafactor: second moments kept as one row and one column."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax import Array, lax

from slm_core.config import Optim
from slm_flax.optim.base import Groups, Transformation, by_group, stateful
from slm_flax.params import Params


def adafactor(optim: Optim, groups: Groups) -> Transformation:
    """Makes Adafactor: divides gradients by second moments that a matrix keeps as one row and one column.

    Paper: Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, algorithms 4 to 6. There is no momentum, and the
    schedule gives the learning rate.

    s = t^-decay_power;  q = g^2 + 1e-30
    matrices: row <- (1 - s) row + s mean(q over out);  col <- (1 - s) col + s mean(q over in);
    v = row col / mean(row)
    vectors:  v <- (1 - s) v + s q
    u = g / sqrt(v);  u <- u / max(1, rms(u) / clip_rms)
    p <- p (1 - lr decay) - lr lr_multiplier max(min_rms, rms(p)) u, with p in rms(p) before its decay

    `optax.scale_by_factored_rms` computes its decay in float32, and factors the two longest sides, not the last two.

    State: "row/NAME" [..., in] and "col/NAME" [..., out], or "v/NAME" of a vector's shape; "count".
    """
    return optax.chain(
        scale_by_factored_rms(optim.decay_power),
        optax.clip_by_block_rms(optim.clip_rms),
        optax.scale_by_param_block_rms(optim.min_rms),
        by_group(groups),
    )


class Factored(NamedTuple):
    """Second moments of matrices by rows and columns, those of vectors, and the updates done."""

    row: Params
    col: Params
    v: Params
    count: Array


def scale_by_factored_rms(power: float, eps: float = 1e-30) -> optax.GradientTransformationExtraArgs:
    """Divides gradients by the root of their second moment, which decays at 1 - t^-power."""

    def init(params: Params) -> Factored:
        matrices = {name: p for name, p in params.items() if p.ndim >= 2}
        return Factored(
            {name: jnp.zeros(p.shape[:-1], p.dtype) for name, p in matrices.items()},
            {name: jnp.zeros(p.shape[:-2] + p.shape[-1:], p.dtype) for name, p in matrices.items()},
            {name: jnp.zeros_like(p) for name, p in params.items() if name not in matrices},
            jnp.zeros((), jnp.int32),
        )

    def update(grads: Params, state: Factored, params: Params, lr: Array) -> tuple[Params, Factored]:
        new, directions = Factored({}, {}, {}, state.count + 1), {}
        share = new.count.astype(lr.dtype) ** -power
        for name, g in grads.items():
            square = jnp.square(g) + eps
            if name in state.v:
                new.v[name] = _toward(state.v[name], square, share)
                directions[name] = g * lax.rsqrt(new.v[name])
                continue
            row = new.row[name] = _toward(state.row[name], square.mean(-1), share)
            col = new.col[name] = _toward(state.col[name], square.mean(-2), share)
            # Root by root: the product of two small means would be 0 in float32.
            root = lax.rsqrt(row / row.mean(-1, keepdims=True))[..., :, None] * lax.rsqrt(col)[..., None, :]
            directions[name] = g * root
        return directions, new

    return stateful(init, update)


def _toward(old: Array, new: Array, share: Array) -> Array:
    return old + share * (new - old)
