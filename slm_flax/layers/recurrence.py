"""The linear recurrence of many mixers, computed in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from slm_flax.layers.decay import ChannelDecay, ScalarDecay
from slm_flax.layers.documents import changes
from slm_flax.numerics import wide

MATRICES, GPU_MATRICES = 64, 1024
"""Chunks of all heads and sequences that are computed at once. A few fit in a CPU's cache; a GPU wants many."""

State = Float[Array, "batch heads width v_width"]


def recurrence(
    q: Float[Array, "batch time heads width"],
    k: Float[Array, "batch time heads width"],
    v: Float[Array, "batch time heads v_width"],
    *,
    log_decay: Float[Array, "batch time heads #width"] | None = None,
    erase: Float[Array, "batch time heads width"] | None = None,
    erase_write: Float[Array, "batch time heads width"] | None = None,
    state: State | None = None,
    documents: Int[Array, "batch time"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Array, "batch time heads v_width"], State]:
    """Computes a linear recurrence whose state is a matrix per head. Returns the outputs and the last state.

        S' = diag(exp(g_t)) S;  S <- S' - b_t (e_t^T S') + k_t v_t^T;  y_t = q_t^T S

    g is `log_decay`, e is `erase`, and b is `erase_write`, or k without it. These mixers are special cases:

    | mixer | g | e, b |
    |---|---|---|
    | linear attention (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236) | none | none |
    | RetNet (https://arxiv.org/abs/2307.08621), Mamba-2 (https://arxiv.org/abs/2405.21060) | per head | none |
    | GLA (https://arxiv.org/abs/2312.06635) | per channel | none |
    | DeltaNet (https://arxiv.org/abs/2406.06484) | none | e = key; k = b = beta key |
    | Gated DeltaNet (https://arxiv.org/abs/2412.06464) | per head | the same |
    | Kimi Delta Attention (https://arxiv.org/abs/2510.26692) | per channel | the same |
    | RWKV-7 (https://arxiv.org/abs/2503.14456) | per channel | e = removal key / exp(g), b = rate removal key |

    Chunks are computed by matrix products. Let G be the decay from the chunk's start, and P the decayed products of
    `decay.py`. What is written beside v, -(e^T S') or with b = k v - e^T S', is a matrix W. It solves

        (I + strictly lower P_eb) W = F - (e G) S;  F = -(strictly lower P_ek) v, or v with b = k
        y = (q G) S + P_qk v + P_qb W, or (q G) S + P_qk W with b = k

    Only the states of chunks are computed one after the other. The backward pass computes a segment of chunks again
    from the state before it. Memory is linear in time. Everything is float32 or wider, and so is the state; the
    outputs have v's dtype.

    Args:
      q: what reads the state; scaled by the caller.
      k: where v is written.
      v: what is written.
      log_decay: at most 0, one per head or one per channel; none: nothing decays.
      erase: what reads that which is erased; none: nothing is erased.
      erase_write: where the erased is taken away; none: at k.
      state: the state before the first position; none: zeros.
      documents: numbers that never fall. The state is reset wherever the number changes; the first position
        continues `state`.
      chunk: positions of a chunk, a power of two.
    """
    if chunk < 1 or chunk & (chunk - 1):
        raise ValueError(f"chunk={chunk} is not a power of two")
    dtype, (batch, time, heads, _) = wide(v.dtype), v.shape
    if state is None:
        state = jnp.zeros((batch, heads, k.shape[3], v.shape[3]), dtype)
    state = state.astype(dtype)
    g = jnp.zeros((batch, time, heads, 1), dtype) if log_decay is None else log_decay.astype(dtype)
    if time == 1:
        return _step(q, k, v, g, erase, erase_write, state)
    if documents is not None:
        g = jnp.where(changes(documents)[:, :, None, None], -jnp.inf, g)
    chunk = min(chunk, 1 << (time - 1).bit_length())
    inputs = [_by_chunk(x, _segments(v, chunk), chunk) for x in (q, k, v, g, erase, erase_write)]
    y, last = _recurrence(*inputs, state.reshape(-1, *state.shape[2:]))
    y = rearrange(y, "s (n b h) c d -> b (s n c) h d", b=batch, h=heads)
    return y[:, :time], last.reshape(state.shape)


def _step(q, k, v, g, erase, erase_write, state):
    """Computes a single position."""
    dtype = state.dtype
    query, key, value = (x[:, 0].astype(dtype) for x in (q, k, v))
    state = state * jnp.exp(g[:, 0])[..., None]
    if erase is not None:
        erased = (erase[:, 0].astype(dtype)[:, :, None] @ state)[:, :, 0]
        if erase_write is None:
            value = value - erased
        else:
            state = state - erase_write[:, 0].astype(dtype)[..., None] * erased[:, :, None]
    state = state + key[..., None] * value[:, :, None]
    return jnp.swapaxes(query[:, :, None] @ state, 1, 2).astype(v.dtype), state


@jax.custom_vjp
def _recurrence(q, k, v, g, erase, erase_write, state):
    """Computes segments that lie in a row: [segments, chunks, size, width]."""
    return _forward(q, k, v, g, erase, erase_write, state)[0]


def _forward(*inputs):
    *inputs, state = inputs

    def segment(state, pieces):
        piece = Segment(*(x if x is None else x.astype(state.dtype) for x in pieces))
        states, last = piece.states(state)
        return last, (piece.outputs(states).astype(inputs[2].dtype), state)

    last, (y, starts) = jax.lax.scan(segment, state, inputs)
    return (y, last), (inputs, starts)


def _backward(saved, gradients):
    (inputs, starts), (dy, dlast) = saved, gradients

    def segment(dstate, pieces):
        pieces, start, dy = pieces
        piece = Segment(*(x if x is None else x.astype(start.dtype) for x in pieces))
        *found, dstate = piece.gradients(piece.states(start)[0], dy.astype(start.dtype), dstate)
        return dstate, [dx if dx is None else dx.astype(x.dtype) for x, dx in zip(pieces, found, strict=True)]

    dstate, found = jax.lax.scan(segment, dlast, (inputs, starts, dy), reverse=True)
    return *found, dstate


_recurrence.defvjp(_forward, _backward)


class Segment:
    """What consecutive chunks compute without their states (DeltaNet in chunks; https://arxiv.org/abs/2406.06484).

    The matrices of a chunk are those of one head of one sequence; the chunks of one head are `heads` apart. x are q
    and e, y are k and b, or k alone. W is linear in the state: W = W_0 - R S, and so is the next state:

        S_next = N S + A;  N = diag(G_end) - (b to its end)^T R;  A = (k to its end)^T v + (b to its end)^T W_0

    Args:
      q: [chunks, size, width], as all but v [chunks, size, v_width] and g.
      k: as q.
      v: the values.
      g: log decays, [chunks, size, 1 or width].
      erase: as q, or none.
      erase_write: as q, or none.
    """

    def __init__(self, q, k, v, g, erase, erase_write):
        self.v, self.erases, self.shared = v, erase is not None, erase_write is None
        self.x = jnp.stack([q] if erase is None else [q, erase], 2)
        self.y = jnp.stack([k] if erase_write is None else [k, erase_write], 2)
        self.decay = ScalarDecay(g) if g.shape[2] == 1 else ChannelDecay(g)
        (chunks, size), kinds = v.shape[:2], self.y.shape[2]
        products = self.decay.products(self.x, self.y).reshape(chunks, size, -1, size * kinds)
        self.reads = products[:, :, 0]  # [chunks, size, size kinds of y]
        self.x_start = self.x * self.decay.from_start[:, :, None]
        self.y_end = (self.y * self.decay.to_end[:, :, None]).reshape(chunks, size * kinds, -1)
        self.left = jnp.broadcast_to(self.decay.from_start[:, -1], (chunks, q.shape[2]))
        self.w_0, self.transition = v, self.left
        if self.erases:
            of_erase = products[:, :, 1].reshape(chunks, size, size, kinds)
            self.erased = [jnp.tril(of_erase[..., kind], -1) for kind in range(kinds)]
            self.inverse = _inverse(self.erased[-1])
            free = v if self.shared else -self.erased[0] @ v
            solved = self._solve(jnp.concatenate([free, self.x_start[:, :, 1]], 2))
            self.w_0, self.r = jnp.split(solved, [v.shape[2]], 2)
            kept = self.left[:, :, None] * np.eye(q.shape[2], dtype=q.dtype)
            self.transition = kept - self._last_kind(self.y_end).mT @ self.r

    def states(self, state):
        """Computes the state before each chunk, [chunks, width, v_width], and the last one, [heads, width, v_width]."""
        of_chunks = self._by_time(len(state), self.y_end.mT @ self._written(self.w_0))
        last, states = jax.lax.scan(lambda state, of_chunk: (self._next(state, *of_chunk), state), state, of_chunks)
        return states.reshape(-1, *state.shape[1:]), last

    def outputs(self, states):
        """Computes the outputs from the state before each chunk."""
        return self.x_start[:, :, 0] @ states + self.reads @ self._written(self._w(states))

    def gradients(self, states, dy, dlast):
        """Computes the gradients of the inputs in their order, and that of the first state.

        Args:
          states: the state before each chunk.
          dy: the gradient of the outputs.
          dlast: the gradient of the last state.
        """
        written = self._written(self._w(states))
        dwritten = self.reads.mT @ dy
        dread = self.x_start[:, :, 0].mT @ dy
        if self.erases:
            dread -= self.r.mT @ self._last_kind(dwritten)

        def step(dstate, of_chunk):
            return self._next(dstate, *of_chunk, backward=True), dstate

        dstate, dnext = jax.lax.scan(step, dlast, self._by_time(len(dlast), dread), reverse=True)
        dnext = dnext.reshape(states.shape)  # of the state after each chunk

        dwritten += self.y_end @ dnext
        dx_start, dproducts = [dy @ states.mT], [dy @ written.mT]
        dv = dwritten
        if self.erases:
            h = self._solve(self._last_kind(dwritten), transposed=True)
            dv = h if self.shared else self._first_kind(dwritten) - self.erased[0].mT @ h
            dx_start.append(-h @ states.mT)
            below = np.tri(h.shape[1], k=-1, dtype=bool)
            dproducts.append((-h @ written.mT) * below.repeat(self.y.shape[2], 1))
        dx = jnp.stack(dx_start, 2) * self.decay.from_start[:, :, None]
        dy_end = (written @ dnext.mT).reshape(self.y.shape) * self.decay.to_end[:, :, None]
        dfrom_start = (self.x * dx).sum(2)
        dfrom_start = dfrom_start.at[:, -1].add(self.left * (states * dnext).sum(2))
        dproducts = jnp.stack(dproducts, 2).reshape(len(dy), -1, written.shape[1])
        dx_inside, dy_inside, dg = self.decay.gradients(
            self.x, self.y, dproducts, dfrom_start, (self.y * dy_end).sum(2)
        )
        dx, dy = dx + dx_inside, dy_end + dy_inside
        dq, derase = dx[:, :, 0], dx[:, :, 1] if self.erases else None
        dk, derase_write = dy[:, :, 0], None if self.shared else dy[:, :, 1]
        return dq, dk, dv, dg, derase, derase_write, dstate

    def _by_time(self, heads, new):
        """Returns what `_next` takes, by chunk."""
        return tuple(x.reshape(-1, heads, *x.shape[1:]) for x in (new, self.transition))

    def _next(self, state, new, transition, backward=False):
        """Computes the state after a chunk from that before it; or backward, with their gradients."""
        if not self.erases:
            return new + transition[:, :, None] * state
        return new + (transition.mT if backward else transition) @ state

    def _w(self, states):
        return self.w_0 - self.r @ states if self.erases else self.v

    def _written(self, w):
        """Returns what the kinds of y write: [chunks, size kinds, v_width]."""
        return w if self.shared else jnp.stack([self.v, w], 2).reshape(len(w), -1, w.shape[2])

    def _first_kind(self, of_y):
        return of_y[:, :: self.y.shape[2]]

    def _last_kind(self, of_y):
        return of_y[:, self.y.shape[2] - 1 :: self.y.shape[2]]

    def _solve(self, x, transposed=False):
        return (self.inverse.mT if transposed else self.inverse) @ x


def _inverse(lower: Array) -> Array:
    """Computes (I + lower)^-1 of strictly lower triangular matrices, [chunks, size, size]; size is a power of two.

        [A 0; C B]^-1 = [A^-1 0; -B^-1 C A^-1 B^-1]

    Blocks of one position are doubled until one is left. XLA's own triangular solve can wait for ever on a CPU, at 64
    positions (jaxlib 0.10).
    """
    chunks, size, _ = lower.shape
    inverse = jnp.ones((chunks, size, 1, 1), lower.dtype)
    for half in (1 << level for level in range(size.bit_length() - 1)):
        pairs = size // (2 * half)
        of_pairs = lower.reshape(chunks, pairs, 2, half, pairs, 2, half)
        c = jnp.moveaxis(jnp.diagonal(of_pairs[:, :, 1, :, :, 0], axis1=1, axis2=3), -1, 1)
        a, b = inverse[:, ::2], inverse[:, 1::2]
        inverse = jnp.concatenate([
            jnp.concatenate([a, jnp.zeros_like(a)], 3),
            jnp.concatenate([-b @ c @ a, b], 3),
        ], 2)  # fmt: skip
    return inverse[:, 0]


def _segments(v: Array, chunk: int) -> int:
    """Counts the segments into which time is cut; each has whole chunks."""
    at_once = max((MATRICES if jax.default_backend() == "cpu" else GPU_MATRICES) // (len(v) * v.shape[2]), 1)
    return -(-v.shape[1] // (at_once * chunk))


def _by_chunk(x, segments, chunk):
    """Returns [segments, chunks batch heads, size, width], zeros after the end of time."""
    if x is None:
        return None
    time = x.shape[1]
    chunks = -(-time // (segments * chunk))
    x = jnp.pad(x, ((0, 0), (0, segments * chunks * chunk - time), (0, 0), (0, 0)))
    return rearrange(x, "b (s n c) h d -> s (n b h) c d", s=segments, c=chunk)
