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
from slm_flax.optim.adamw import one_minus_power
from slm_flax.optim.base import Groups, Transformation, by_group, stateful
from slm_flax.params import Params
from slm_flax.quantization.blockwise import Quantiser

SLICE = 2**20
"""Values of a parameter that are worked on at once: a whole embedding's moments never stand decoded."""


def adamw8bit(optim: Optim, groups: Groups) -> Transformation:
    """Returns AdamW with both moments in 8 bits, by blocks (Dettmers et al. 2021, https://arxiv.org/abs/2110.02861,
    section 2). optax has none.

    m and v are decoded, updated as in `adamw`, used, and only then encoded again: m by the signed table of
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
    """Makes of gradients the directions of Adam, with the moments of large parameters in 8 bits."""
    adam = optax.scale_by_adam(*optim.betas, optim.eps)
    m, v = Quantiser(signed_code(), optim.quantised_block), Quantiser(unsigned_code(), optim.quantised_block)

    def split(values: Params) -> tuple[Params, Params]:
        """Returns the values of the parameters whose moments are quantised, and the rest."""
        large = {name: value for name, value in values.items() if value.size >= optim.quantised_from}
        return large, {name: value for name, value in values.items() if name not in large}

    def init(params: Params) -> Moments:
        large, small = split(params)
        codes = [{name: jnp.full_like(p, q.zero, dtype=jnp.uint8) for name, p in large.items()} for q in (m, v)]
        scales = {name: jnp.ones(n_blocks(p.size, optim.quantised_block), p.dtype) for name, p in large.items()}
        return Moments(adam.init(small), codes[0], scales, codes[1], jax.tree.map(jnp.copy, scales))

    def update(grads: Params, state: Moments, params: Params, lr: Array) -> tuple[Params, Moments]:
        large, small = split(grads)
        directions, small_state = adam.update(small, state.small)
        found: Any = directions
        new = Moments(small_state, {}, {}, {}, {})
        corrections = [one_minus_power(beta, new.small.count, lr) for beta in optim.betas]
        step = functools.partial(_step, optim, m, v, corrections)
        for name, g in large.items():
            held = [g, state.m[name], state.m_scale[name], state.v[name], state.v_scale[name]]
            flat = _in_slices(step, optim.quantised_block, [x.reshape(-1) for x in held])
            parts = (found, new.m, new.m_scale, new.v, new.v_scale)
            for part, value, old in zip(parts, flat, held, strict=True):
                part[name] = value.reshape(old.shape)
        return found, new

    return stateful(init, update)


def _in_slices(step: Callable[..., list[Array]], block: int, held: list[Array]) -> list[Array]:
    """Returns what `step` makes of a gradient and its moments, in a loop: it changes in place what it carries."""
    n = max(SLICE // block, 1)
    whole, tail = divmod(held[0].size, n * block)
    if whole:
        held = lax.fori_loop(0, whole, lambda i, held: step(i * n, n * block, held), held)
    return step(whole * n, tail, held) if tail else held


def _step(
    optim: Optim, m_codes: Quantiser, v_codes: Quantiser, corrections: list[Array], at: Array | int, size: int,
    held: list[Array],
) -> list[Array]:  # fmt: skip
    """Returns a gradient, the codes and scales of m, those of v, all flat, with `size` values from block `at` on
    updated. The direction takes the place of the gradient.
    """
    n, first = n_blocks(size, optim.quantised_block), at * optim.quantised_block
    sizes, starts = (size, size, n, size, n), (first, first, at, first, at)
    slices = zip(held, starts, sizes, strict=True)
    g, *moments = (lax.dynamic_slice_in_dim(x, start, length) for x, start, length in slices)
    (b1, b2), (correction1, correction2) = optim.betas, corrections
    m = b1 * m_codes.dequantise(*moments[:2]) + (1 - b1) * g
    v = b2 * v_codes.dequantise(*moments[2:]) + (1 - b2) * jnp.square(g)
    direction = m / correction1 / (jnp.sqrt(v) / jnp.sqrt(correction2) + optim.eps)
    moved = (direction, *m_codes.quantise(m), *v_codes.quantise(v))
    return [lax.dynamic_update_slice_in_dim(x, y, start, 0) for x, y, start in zip(held, moved, starts, strict=True)]
