"""AdamW with both moments in 8 bits, by blocks (Dettmers et al. 2021, https://arxiv.org/abs/2110.02861, section 2).

m and v are decoded, updated as in `adamw`, used, and only then encoded again: m by the signed table of
`quantization.blockwise`, v by the unsigned one. Parameters of fewer than `quantised_from` values are AdamW's.
"""

import functools
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array, lax

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_core.quantization.blockwise import n_blocks, signed_code, unsigned_code
from slm_flax.optim.adamw import AdamW, one_minus_power
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params
from slm_flax.quantization.blockwise import Quantiser

SLICE = 2**20
"""Values of a parameter that are worked on at once: a whole embedding's moments never stand decoded."""


class AdamW8bit(Optimizer):
    """State: "m/NAME", uint8 of the parameter's shape; "m_scale/NAME", [blocks] of its dtype; v likewise."""

    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.rest, self.quantised_from = AdamW(optim, groups), optim.quantised_from
        self.betas, self.eps, self.block = optim.betas, optim.eps, optim.quantised_block
        self.m, self.v = Quantiser(signed_code(), self.block), Quantiser(unsigned_code(), self.block)

    def init(self, params: Params) -> OptimState:
        large, rest = self.split(params)
        state = super().init({}) | self.rest.init(rest)  # one count for both
        for name, p in large.items():
            for part, quantiser in (("m", self.m), ("v", self.v)):
                state[f"{part}/{name}"] = jnp.full_like(p, quantiser.zero, dtype=jnp.uint8)
                state[f"{part}_scale/{name}"] = jnp.ones(n_blocks(p.size, self.block), p.dtype)
        return state

    def split(self, values: Params) -> tuple[Params, Params]:
        """Returns the values of the parameters whose moments are quantised, and the rest."""
        large = {name: value for name, value in values.items() if value.size >= self.quantised_from}
        return large, {name: value for name, value in values.items() if name not in large}

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        large, rest = self.split(grads)
        updated, new = self.rest.update(rest, state, params, lr)
        corrections = [one_minus_power(beta, new["count"], lr) for beta in self.betas]
        for name, g in large.items():
            entries = [f"{part}/{name}" for part in ("m", "m_scale", "v", "v_scale")]
            held = [params[name], *(state[entry] for entry in entries)]
            step = functools.partial(self.step, name, g.reshape(-1), lr, corrections)
            moved = self.in_slices(step, g.size, [x.reshape(-1) for x in held])
            updated[name], *moments = (new.reshape(old.shape) for new, old in zip(moved, held, strict=True))
            new |= dict(zip(entries, moments, strict=True))
        return updated, new

    def in_slices(self, step: Callable[..., list[Array]], size: int, held: list[Array]) -> list[Array]:
        """Returns what `step` makes of a parameter and its state, in a loop: it changes in place what it carries."""
        n = max(SLICE // self.block, 1)
        whole, tail = divmod(size, n * self.block)
        if whole:
            held = lax.fori_loop(0, whole, lambda i, held: step(i * n, n * self.block, held), held)
        return step(whole * n, tail, held) if tail else held

    def step(
        self, name: str, g: Array, lr: Array, corrections: list[Array], at: Array | int, size: int, held: list[Array]
    ) -> list[Array]:
        """Returns a parameter, the codes and scales of m, those of v, all flat, with `size` values from block `at` on
        updated.
        """
        n, first = n_blocks(size, self.block), at * self.block
        sizes, starts = (size, size, n, size, n), (first, first, at, first, at)
        p, *moments = (lax.dynamic_slice_in_dim(x, *where) for x, *where in zip(held, starts, sizes, strict=True))
        g = lax.dynamic_slice_in_dim(g, first, size)
        (b1, b2), (correction1, correction2) = self.betas, corrections
        m = b1 * self.m.dequantise(*moments[:2]) + (1 - b1) * g
        v = b2 * self.v.dequantise(*moments[2:]) + (1 - b2) * jnp.square(g)
        p = self.moved(name, p, m / correction1 / (jnp.sqrt(v) / jnp.sqrt(correction2) + self.eps), lr)
        moved = (p, *self.m.quantise(m), *self.v.quantise(v))
        return [
            lax.dynamic_update_slice_in_dim(x, y, start, 0) for x, y, start in zip(held, moved, starts, strict=True)
        ]
