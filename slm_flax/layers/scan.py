"""The elementwise linear recurrence of minimal recurrent networks."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from slm_flax.layers.documents import changes
from slm_flax.numerics import wide

CHUNK = 64
"""Positions of a chunk. Time is walked through in steps of chunks, and each chunk in steps of positions."""


def scan(
    a: Float[Array, "batch time width"],
    b: Float[Array, "batch time width"],
    *,
    state: Float[Array, "batch width"] | None = None,
    documents: Int[Array, "batch time"] | None = None,
) -> tuple[Float[Array, "batch time width"], Float[Array, "batch width"]]:
    """Computes a recurrence of each channel by itself. Returns every h and the last one.

        h_t = a_t h_{t-1} + b_t

    This is all of time in minGRU and minLSTM (Feng et al. 2024, https://arxiv.org/abs/2410.01201). All chunks walk
    through their positions at once, as if h were 0 before each, with the products of their a. Then h goes from chunk
    to chunk. There are no logarithms and no quotients, so a may be 0 or negative. The gradients are a recurrence
    backward in time:

        dh_t = dy_t + a_{t+1} dh_{t+1};  da_t = dh_t h_{t-1};  db_t = dh_t

    Everything is float32 or wider, and so is the last h; the others have b's dtype.

    Args:
      a: what is kept.
      b: what is added.
      state: h before the first position; none: zeros.
      documents: numbers that never fall. h is reset wherever the number changes; the first position continues
        `state`.
    """
    dtype = wide(b.dtype)
    state = jnp.zeros((len(b), b.shape[2]), dtype) if state is None else state.astype(dtype)
    if b.shape[1] == 1:
        last = a[:, 0].astype(dtype) * state + b[:, 0].astype(dtype)
        return last[:, None].astype(b.dtype), last
    if documents is not None:
        a = jnp.where(changes(documents)[:, :, None], 0, a)
    return _scan(a, b, state)


@jax.custom_vjp
def _scan(a, b, state):
    return _forward(a, b, state)[0]


def _forward(a, b, state):
    h = _walk(a.astype(state.dtype), b.astype(state.dtype), state)
    y = h.astype(b.dtype)
    return (y, h[:, -1]), (a, h, state, y[:, :0])


def _backward(saved, gradients):
    (a, h, state, of_b), (dy, dlast) = saved, gradients
    wide_a = a.astype(h.dtype)
    next_a = jnp.concatenate([wide_a[:, 1:], jnp.ones_like(wide_a[:, :1])], 1)
    dh = jnp.flip(_walk(jnp.flip(next_a, 1), jnp.flip(dy.astype(h.dtype), 1), dlast), 1)
    before = jnp.concatenate([state[:, None], h[:, :-1]], 1)
    return (dh * before).astype(a.dtype), dh.astype(of_b.dtype), wide_a[:, 0] * dh[:, 0]


_scan.defvjp(_forward, _backward)


def _walk(a: Array, b: Array, state: Array) -> Array:
    """Computes every h."""
    time = a.shape[1]
    size = min(CHUNK, time)
    padded = (jnp.pad(x, ((0, 0), (0, -time % size), (0, 0))) for x in (a, b))
    a, b = (rearrange(x, "b (n c) d -> c n b d", c=size) for x in padded)  # [size, chunks, batch, width]

    def position(so_far, of_position):
        (h, product), (a, b) = so_far, of_position
        both = a * h + b, product * a
        return both, both

    def chunk(state, of_chunk):
        h, product = of_chunk  # [size, batch, width]
        h += product * state
        return h[-1], h

    _, (h, product) = jax.lax.scan(position, (jnp.zeros_like(b[0]), jnp.ones_like(a[0])), (a, b))
    _, h = jax.lax.scan(chunk, state, (h.swapaxes(0, 1), product.swapaxes(0, 1)))
    return rearrange(h, "n c b d -> b (n c) d")[:, :time]
