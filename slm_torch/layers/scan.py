"""The elementwise linear recurrence of minimal recurrent networks."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from slm_torch.layers.documents import changes
from slm_torch.numerics import wide

CHUNK = 64
"""Positions of a chunk. Time is walked through in steps of chunks, and each chunk in steps of positions."""


def scan(
    a: Float[Tensor, "batch time width"],
    b: Float[Tensor, "batch time width"],
    *,
    state: Float[Tensor, "batch width"] | None = None,
    documents: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch width"]]:
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
    state = b.new_zeros(len(b), b.shape[2], dtype=dtype) if state is None else state.to(dtype)
    if b.shape[1] == 1:
        last = a[:, 0].to(dtype) * state + b[:, 0].to(dtype)
        return last[:, None].to(b.dtype), last
    if documents is not None:
        a = torch.where(changes(documents)[:, :, None], 0, a)
    # pyrefly: ignore[bad-return]  torch declares no type for `apply`
    return _Scan.apply(a, b, state)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, state):
        h = _walk(a.to(state.dtype), b.to(state.dtype), state)
        ctx.save_for_backward(a, h, state)
        ctx.dtype = b.dtype
        return h.to(b.dtype, copy=True), h[:, -1].clone()

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]  torch declares that it takes any gradients
    def backward(ctx, dy, dlast):
        a, h, state = ctx.saved_tensors
        wide_a = a.to(h.dtype)
        next_a = torch.cat([wide_a[:, 1:], torch.ones_like(wide_a[:, :1])], 1)
        dh = _walk(next_a.flip(1), dy.to(h.dtype).flip(1), dlast).flip(1)
        before = torch.cat([state[:, None], h[:, :-1]], 1)
        return (dh * before).to(a.dtype), dh.to(ctx.dtype), wide_a[:, 0] * dh[:, 0]


def _walk(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """Computes every h."""
    time = a.shape[1]
    size = min(CHUNK, time)
    a, b = (pad(x, (0, 0, 0, -time % size)).unflatten(1, (-1, size)) for x in (a, b))  # [batch, chunks, size, width]
    h, product = torch.empty_like(b), torch.empty_like(a)
    h[:, :, 0], product[:, :, 0] = b[:, :, 0], a[:, :, 0]
    for t in range(1, size):
        torch.addcmul(b[:, :, t], a[:, :, t], h[:, :, t - 1], out=h[:, :, t])
        torch.mul(product[:, :, t - 1], a[:, :, t], out=product[:, :, t])
    for chunk in range(h.shape[1]):
        h[:, chunk].addcmul_(product[:, chunk], state[:, None])
        state = h[:, chunk, -1]
    return h.flatten(1, 2)[:, :time]
