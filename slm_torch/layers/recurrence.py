"""The linear recurrence of many mixers, computed in chunks."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from slm_torch.layers.decay import ChannelDecay, ScalarDecay
from slm_torch.layers.documents import changes
from slm_torch.numerics import wide

MATRICES, GPU_MATRICES = 64, 1024
"""Chunks of all heads and sequences that are computed at once. A few fit in a CPU's cache; a GPU wants many."""

State = Float[Tensor, "batch heads width v_width"]


def recurrence(
    q: Float[Tensor, "batch time heads width"],
    k: Float[Tensor, "batch time heads width"],
    v: Float[Tensor, "batch time heads v_width"],
    *,
    log_decay: Float[Tensor, "batch time heads #width"] | None = None,
    erase: Float[Tensor, "batch time heads width"] | None = None,
    erase_write: Float[Tensor, "batch time heads width"] | None = None,
    state: State | None = None,
    documents: Int[Tensor, "batch time"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "batch time heads v_width"], State]:
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
    dtype = wide(v.dtype)
    if state is None:
        state = v.new_zeros(len(v), v.shape[2], k.shape[3], v.shape[3], dtype=dtype)
    state, time = state.to(dtype), v.shape[1]
    g = v.new_zeros(*v.shape[:3], 1, dtype=dtype) if log_decay is None else log_decay.to(dtype)
    if time == 1:
        return _step(q, k, v, g, erase, erase_write, state)
    if documents is not None:
        g = torch.where(changes(documents)[:, :, None, None], -torch.inf, g)
    # pyrefly: ignore[bad-return]  torch declares no type for `apply`
    return _Recurrence.apply(q, k, v, g, erase, erase_write, state, min(chunk, 1 << (time - 1).bit_length()))


def _step(q, k, v, g, erase, erase_write, state):
    """Computes a single position."""
    dtype = state.dtype
    query, key, value = (x[:, 0].to(dtype) for x in (q, k, v))
    state = state * g[:, 0].exp()[..., None]
    if erase is not None:
        erased = (erase[:, 0].to(dtype)[:, :, None] @ state)[:, :, 0]
        if erase_write is None:
            value = value - erased
        else:
            state = state - erase_write[:, 0].to(dtype)[..., None] * erased[:, :, None]
    state = state + key[..., None] * value[:, :, None]
    return (query[:, :, None] @ state).transpose(1, 2).to(v.dtype), state


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, g, erase, erase_write, state, chunk):
        inputs = (q, k, v, g, erase, erase_write)
        y, starts, last = torch.empty_like(v), [], state.flatten(0, 1)
        for place in _places(v, chunk):
            starts.append(last)
            segment = Segment(*_by_chunk(inputs, place, chunk, state.dtype))
            states, last = segment.states(last)
            _write(y, segment.outputs(states), place)
        ctx.save_for_backward(*inputs, torch.stack(starts))
        ctx.chunk = chunk
        return y, last.view_as(state)

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]  torch declares that it takes any gradients
    def backward(ctx, dy, dlast):
        *inputs, starts = ctx.saved_tensors
        gradients = [None if x is None else torch.empty_like(x) for x in inputs]
        places, dstate = _places(dy, ctx.chunk), dlast.flatten(0, 1)
        for place, start in zip(reversed(places), reversed(starts.unbind()), strict=True):
            segment = Segment(*_by_chunk(inputs, place, ctx.chunk, starts.dtype))
            (dys,) = _by_chunk([dy], place, ctx.chunk, starts.dtype)
            *segment_gradients, dstate = segment.gradients(segment.states(start)[0], dys, dstate)
            for x, dx in zip(gradients, segment_gradients, strict=True):
                if x is not None:
                    _write(x, dx, place)
        return *gradients, dstate.view_as(dlast), None


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
        self.x = torch.stack([q] if erase is None else [q, erase], 2)
        self.y = torch.stack([k] if erase_write is None else [k, erase_write], 2)
        self.decay = ScalarDecay(g) if g.shape[2] == 1 else ChannelDecay(g)
        products = self.decay.products(self.x, self.y).unflatten(1, (-1, self.x.shape[2]))
        self.reads = products[:, :, 0]  # [chunks, size, size kinds of y]
        self.x_start = self.x * self.decay.from_start[:, :, None]
        self.y_end = (self.y * self.decay.to_end[:, :, None]).flatten(1, 2)
        self.left = self.decay.from_start[:, -1].expand(-1, q.shape[2])
        self.w_0, self.transition = v, self.left
        if self.erases:
            size = v.shape[1]
            of_erase = products[:, :, 1].unflatten(2, (size, -1))
            self.erased = [x.tril(-1) for x in of_erase.unbind(3)]
            free = v if self.shared else -self.erased[0] @ v
            solved = self._solve(torch.cat([free, self.x_start[:, :, 1]], 2))
            self.w_0, self.r = solved.split([v.shape[2], q.shape[2]], 2)
            self.transition = torch.diag_embed(self.left) - self._last_kind(self.y_end).mT @ self.r

    def states(self, state):
        """Computes the state before each chunk, [chunks, width, v_width], and the last one, [heads, width, v_width]."""
        states = [state]
        for new, transition in self._by_time(len(state), self.y_end.mT @ self._written(self.w_0)):
            states.append(self._next(states[-1], new, transition))
        return torch.cat(states[:-1]), states[-1]

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
        dstates = [dlast]
        for new, transition in reversed(self._by_time(len(dlast), dread)):
            dstates.append(self._next(dstates[-1], new, transition, backward=True))
        dnext = torch.cat(dstates[-2::-1])  # of the state after each chunk

        dwritten += self.y_end @ dnext
        dx_start, dproducts = [dy @ states.mT], [dy @ written.mT]
        dv = dwritten
        if self.erases:
            h = self._solve(self._last_kind(dwritten), transposed=True)
            dv = h if self.shared else self._first_kind(dwritten) - self.erased[0].mT @ h
            dx_start.append(-h @ states.mT)
            below = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).tril(-1)
            dproducts.append((-h @ written.mT) * below.repeat_interleave(self.y.shape[2], 1))
        dx = torch.stack(dx_start, 2) * self.decay.from_start[:, :, None]
        dy_end = (written @ dnext.mT).view_as(self.y) * self.decay.to_end[:, :, None]
        dfrom_start = (self.x * dx).sum(2)
        dfrom_start[:, -1] += self.left * (states * dnext).sum(2)
        dx_inside, dy_inside, dg = self.decay.gradients(
            self.x, self.y, torch.stack(dproducts, 2).flatten(1, 2), dfrom_start, (self.y * dy_end).sum(2)
        )
        dq, derase = (*(dx + dx_inside).unbind(2), None)[:2]
        dk, derase_write = (*(dy_end + dy_inside).unbind(2), None)[:2]
        return dq, dk, dv, dg, derase, derase_write, dstates[-1]

    def _by_time(self, heads, new):
        """Lists what `_next` takes, chunk after chunk."""
        return list(zip(*(x.unflatten(0, (-1, heads)) for x in (new, self.transition)), strict=True))

    def _next(self, state, new, transition, backward=False):
        """Computes the state after a chunk from that before it; or backward, with their gradients."""
        if not self.erases:
            return torch.addcmul(new, transition[:, :, None], state)
        return torch.baddbmm(new, transition.mT if backward else transition, state)

    def _w(self, states):
        return self.w_0 - self.r @ states if self.erases else self.v

    def _written(self, w):
        """Returns what the kinds of y write: [chunks, size kinds, v_width]."""
        return w if self.shared else torch.stack([self.v, w], 2).flatten(1, 2)

    def _first_kind(self, of_y):
        return of_y.unflatten(1, (-1, self.y.shape[2]))[:, :, 0]

    def _last_kind(self, of_y):
        return of_y.unflatten(1, (-1, self.y.shape[2]))[:, :, -1]

    def _solve(self, x, transposed=False):
        lower = self.erased[-1]
        matrix = lower.mT if transposed else lower
        return torch.linalg.solve_triangular(matrix, x, upper=transposed, unitriangular=True)


def _places(v: Tensor, chunk: int) -> list[slice]:
    """Cuts time into segments of whole chunks, as equal as possible; the last one may be longer than what is left."""
    chunks = -(-v.shape[1] // chunk)
    at_once = max((MATRICES if v.device.type == "cpu" else GPU_MATRICES) // (len(v) * v.shape[2]), 1)
    segments = -(-chunks // at_once)
    size = -(-chunks // segments) * chunk
    return [slice(start, start + size) for start in range(0, v.shape[1], size)]


def _by_chunk(inputs, place, chunk, dtype):
    """Returns a segment of each input as [chunks batch heads, size, width], zeros after the end of time."""
    for x in inputs:
        if x is None:
            yield None
            continue
        piece = x[:, place].to(dtype)
        missing = -piece.shape[1] % chunk
        piece = pad(piece, (0, 0, 0, 0, 0, missing)) if missing else piece
        yield rearrange(piece, "b (n c) h d -> (n b h) c d", c=chunk)


def _write(y, chunks, place):
    """Writes a segment into its place, in place."""
    piece = y[:, place]
    batch, time, heads, _ = piece.shape
    piece.copy_(rearrange(chunks, "(n b h) c d -> b (n c) h d", b=batch, h=heads)[:, :time])
