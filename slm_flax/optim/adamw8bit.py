"""AdamW with both moments in 8 bits, by blocks."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from slm_core.config import Optim
from slm_core.quantization.blockwise import n_blocks, signed_code, unsigned_code
from slm_flax.optim.adamw import direction, one_minus_power, scale_by_adam
from slm_flax.optim.base import Groups, Transformation, by_group, stateful
from slm_flax.params import Params
from slm_flax.quantization.blockwise import Quantiser

SLICE = 2**20
"""How many values of a parameter are updated at once: an embedding's moments are never dequantised as a whole."""


def adamw8bit(optim: Optim, groups: Groups) -> Transformation:
    """Makes AdamW with both moments in 8 bits, by blocks.

    Paper: Dettmers et al. 2021, https://arxiv.org/abs/2110.02861, section 2. optax lacks this optimizer.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p (1 - lr decay) - lr lr_multiplier / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    m and v are dequantised, updated, used, and only then quantised again: m by the signed table of
    `quantization.blockwise`, v by the unsigned one. Parameters of fewer than `quantised_from` values are AdamW's.

    State of a large parameter: "m/NAME", uint8 of its shape, and "m_scale/NAME", [blocks] of its dtype; v likewise.
    State of a small one: AdamW's. Both share "count".
    """
    return optax.chain(scale_by_adam8bit(optim), by_group(groups))


class Moments(NamedTuple):
    """AdamW's state of the small parameters; codes and scales of both moments of the large ones."""

    small: Any
    m: Params
    m_scale: Params
    v: Params
    v_scale: Params


def scale_by_adam8bit(optim: Optim) -> optax.GradientTransformationExtraArgs:
    """Turns gradients into the directions of Adam, with the moments of large parameters in 8 bits."""
    adam = scale_by_adam(optim)
    m, v = Quantiser(signed_code(), optim.quantised_block), Quantiser(unsigned_code(), optim.quantised_block)

    def split(values: Params) -> tuple[Params, Params]:
        """Splits off the values of the parameters whose moments are quantised."""
        large = {name: value for name, value in values.items() if value.size >= optim.quantised_from}
        return large, {name: value for name, value in values.items() if name not in large}

    def init(params: Params) -> Moments:
        large, small = split(params)
        codes = [{name: jnp.full_like(p, q.zero, dtype=jnp.uint8) for name, p in large.items()} for q in (m, v)]
        scales = {name: jnp.ones(n_blocks(p.size, optim.quantised_block), p.dtype) for name, p in large.items()}
        return Moments(adam.init(small), codes[0], scales, codes[1], jax.tree.map(jnp.copy, scales))

    def update(grads: Params, state: Moments, params: Params, lr: Array) -> tuple[Params, Moments]:
        large, small = split(grads)
        small_directions, small_state = adam.update(small, state.small, lr=lr)
        directions: Any = small_directions
        new = Moments(small_state, {}, {}, {}, {})
        corrections = [one_minus_power(beta, new.small.count, lr) for beta in optim.betas]
        step = functools.partial(_step, optim, m, v, corrections)
        for name, g in large.items():
            arrays = [g, state.m[name], state.m_scale[name], state.v[name], state.v_scale[name]]
            flat = _in_slices(step, optim.quantised_block, [x.reshape(-1) for x in arrays])
            parts = (directions, new.m, new.m_scale, new.v, new.v_scale)
            for part, value, old in zip(parts, flat, arrays, strict=True):
                part[name] = value.reshape(old.shape)
        return directions, new

    return stateful(init, update)


def _in_slices(step: Callable[..., list[Array]], block: int, flat: list[Array]) -> list[Array]:
    """Calls `step` for slice after slice of a gradient and its moments, in a loop, which updates them in place."""
    n = max(SLICE // block, 1)
    whole, tail = divmod(flat[0].size, n * block)
    if whole:
        flat = lax.fori_loop(0, whole, lambda i, flat: step(i * n, n * block, flat), flat)
    return step(whole * n, tail, flat) if tail else flat


def _step(
    optim: Optim, m_codes: Quantiser, v_codes: Quantiser, corrections: list[Array], at: Array | int, size: int,
    flat: list[Array],
) -> list[Array]:  # fmt: skip
    """Updates `size` values from block `at` on.

    `flat` is a gradient, the codes and scales of m, and those of v. The direction takes the place of the gradient.
    """
    n, first = n_blocks(size, optim.quantised_block), at * optim.quantised_block
    sizes, starts = (size, size, n, size, n), (first, first, at, first, at)
    slices = zip(flat, starts, sizes, strict=True)
    g, *moments = (lax.dynamic_slice_in_dim(x, start, length) for x, start, length in slices)
    b1, b2 = optim.betas
    m = b1 * m_codes.dequantise(*moments[:2]) + (1 - b1) * g
    v = b2 * v_codes.dequantise(*moments[2:]) + (1 - b2) * jnp.square(g)
    new = (direction(m, v, corrections, optim.eps), *m_codes.quantise(m), *v_codes.quantise(v))
    return [lax.dynamic_update_slice_in_dim(x, y, start, 0) for x, y, start in zip(flat, new, starts, strict=True)]
