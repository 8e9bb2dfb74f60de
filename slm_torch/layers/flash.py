"""FlashAttention: softmax attention in tiles."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from slm_torch.layers.dot_product import MASKED
from slm_torch.numerics import wide

TILE, GPU_TILE = 128, 256
"""Queries and keys of a tile. A small tile fits in a CPU's cache; a large one needs fewer operations on a GPU."""

NOTHING = MASKED / 2
"""L of no keys: far below L of any visible key, and far above L of masked keys, so that these weigh exactly 0."""


def flash(
    q: Float[Tensor, "batch time heads head_dim"],
    k: Float[Tensor, "batch keys kv_heads head_dim"],
    v: Float[Tensor, "batch keys kv_heads v_dim"],
    *,
    start: int,
    keys_start: int = 0,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    bias: Float[Tensor, "heads distances"] | None = None,
    sinks: Float[Tensor, "heads"] | None = None,
    documents: Int[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch time heads v_dim"]:
    """Computes softmax attention in tiles of scores, so that memory is linear in the context.

    The function and its arguments are those of `dot_product` (FlashAttention; Dao et al. 2022,
    https://arxiv.org/abs/2205.14135; Dao 2023, https://arxiv.org/abs/2307.08691). The forward pass mixes one tile of
    keys after the other into the result of a tile of queries: an output y, and the logarithm L of its softmax's sum.

        s = q k^T scale;  l = log sum exp(s);  L' = log(exp(L) + exp(l))
        y' = exp(L - L') y + exp(l - L') softmax(s) v

    The backward pass computes the tiles again, from q, k and the last L:

        p = exp(s - L);  dv = p^T dy;  ds = p (dy v^T - sum(dy y));  dq = ds k scale;  dk = ds^T q scale

    L starts from the sink, or from the logarithm of almost nothing. Bias and mask are numbers by distance that are
    added to s; keys of other documents get MASKED. The gradient of the bias at a distance is the sum of ds along that
    diagonal. Tiles without a visible key are left out.
    """
    unused = max(-keys_start, 0)  # keys at positions before 0 are hidden
    options = Options(start - keys_start - unused, scale, window, softcap)
    numbers = None if documents is None else documents[:, unused:]
    # pyrefly: ignore[bad-return]  torch declares no type for `apply`
    return _Flash.apply(q, k[:, unused:], v[:, unused:], bias, sinks, numbers, options)


class Options(NamedTuple):
    """The settings that are the same for all tiles."""

    start: int
    """Position of the first query; the first key stands at 0."""
    scale: float
    window: int
    softcap: float


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, bias, sinks, documents, options):
        batch, time, heads, _ = q.shape
        dtype, v_dim = wide(q.dtype), v.shape[3]
        tiles = Tiles(q, k, bias, documents, options)
        queries, keys, values = _by_group(q, k), _by_group(k, k)[:, 0], _by_group(v, k)[:, 0]
        y = queries.new_empty(*queries.shape[:3], v_dim)
        first = q.new_full((heads,), NOTHING, dtype=dtype) if sinks is None else sinks.to(dtype)
        log_sum = first[:, None].repeat(batch, 1, time).view(*queries.shape[:3], 1)
        for rows in tiles.rows:
            query, so_far = _tile(queries, rows), _tile(log_sum, rows)
            mixed = query.new_zeros(*query.shape[:2], v_dim, dtype=dtype)
            for columns in tiles.seen_by(rows):
                s, _ = tiles.scores(query, keys[:, columns], rows, columns)
                p = torch.softmax(s, dim=-1)
                added = s.amax(-1, keepdim=True) - torch.log(p.amax(-1, keepdim=True))  # sum = exp(max s) / max p
                both = torch.logaddexp(so_far, added)
                mixed *= torch.exp(so_far - both)
                mixed += torch.exp(added - both) * (p.to(v.dtype) @ values[:, columns])
                so_far = both
                del s, p  # before the next tile's
            y[:, :, rows] = mixed.view(y[:, :, rows].shape)
            log_sum[:, :, rows] = so_far.view(log_sum[:, :, rows].shape)
        y = _by_position(y, batch)
        ctx.save_for_backward(q, k, v, bias, sinks, documents, y, log_sum)
        ctx.options = options
        return y

    @staticmethod
    @once_differentiable
    # pyrefly: ignore[bad-override]  torch declares that it takes any gradients
    def backward(ctx, dy):
        q, k, v, bias, sinks, documents, y, log_sum = ctx.saved_tensors
        batch, dtype = q.shape[0], wide(q.dtype)
        tiles = Tiles(q, k, bias, documents, ctx.options)
        queries, keys, values = _by_group(q, k), _by_group(k, k)[:, 0], _by_group(v, k)[:, 0]
        dys, mean = _by_group(dy, k), _by_group((dy.to(dtype) * y).sum(-1, keepdim=True), k)
        dq = torch.zeros_like(queries, dtype=dtype)
        dk, dv = torch.empty_like(keys), torch.empty_like(values)
        dtable = torch.zeros_like(tiles.table) if ctx.needs_input_grad[3] else None
        for columns in tiles.columns:
            key, value = keys[:, columns], values[:, columns]
            dkey, dvalue = torch.zeros_like(key, dtype=dtype), torch.zeros_like(value, dtype=dtype)
            for rows in tiles.seeing(columns):
                query, dout = _tile(queries, rows), _tile(dys, rows)
                s, slope = tiles.scores(query, key, rows, columns)
                p = s.sub_(_tile(log_sum, rows)).exp_()
                dvalue += p.to(v.dtype).mT @ dout
                ds = (dout @ value.mT).to(dtype).sub_(_tile(mean, rows)).mul_(p)
                if dtable is not None:
                    tiles.add_diagonals(dtable, ds, rows, columns)
                if slope is not None:
                    ds *= slope
                ds = ds.mul_(ctx.options.scale).to(q.dtype)
                dq[:, :, rows] += (ds @ key).view(dq[:, :, rows].shape)
                dkey += ds.mT @ query
                del s, p, ds
            dk[:, columns], dv[:, columns] = dkey, dvalue
        dq, dk, dv = (_by_position(x, batch) for x in (dq.to(q.dtype), dk[:, None], dv[:, None]))
        dbias = None if dtable is None else tiles.bias_gradient(dtable, bias)
        dsinks = None
        if sinks is not None:
            mean, log_sum = _by_position(mean, batch)[..., 0], _by_position(log_sum, batch)[..., 0]
            dsinks = -(torch.exp(sinks - log_sum) * mean).sum((0, 1)).to(sinks.dtype)
        return dq, dk, dv, dbias, dsinks, None, None


class Tiles:
    """The tiles of scores: which queries (rows) meet which keys (columns), and their scores.

    `table`, [heads or 1, distances], is added to the scores: the bias, if any, and MASKED for hidden keys. Its largest
    distance comes first. So each row of a tile is a slice of the table, which starts one to the left of the slice
    above.
    """

    def __init__(self, q: Tensor, k: Tensor, bias: Tensor | None, documents: Tensor | None, options: Options):
        (self.batch, time), keys = q.shape[:2], k.shape[1]
        self.options, self.biased, self.documents = options, bias is not None, documents
        size = TILE if q.device.type == "cpu" else GPU_TILE
        height = min(size, time)
        width = max(min(size * size // height, keys), 1)  # few queries take wide tiles
        self.rows, self.columns = _slices(time, height), _slices(keys, width)
        self.largest = max(options.start + time - 1, 0)
        visible = min(self.largest + 1, options.window or self.largest + 1)
        self.visible = slice(self.largest + 1 - visible, self.largest + 1)
        shape = (q.shape[2] if self.biased else 1, self.largest + height + width)
        self.table = q.new_full(shape, MASKED, dtype=wide(q.dtype))
        self.table[:, self.visible] = 0 if bias is None else bias[:, :visible].flip(-1).to(self.table.dtype)

    def seen_by(self, rows: slice) -> list[slice]:
        """Lists the tiles of keys that the queries `rows` see."""
        return [columns for columns in self.columns if self._meet(rows, columns)]

    def seeing(self, columns: slice) -> list[slice]:
        """Lists the tiles of queries that see the keys `columns`."""
        return [rows for rows in self.rows if self._meet(rows, columns)]

    def scores(self, query: Tensor, key: Tensor, rows: slice, columns: slice) -> tuple[Tensor, Tensor | None]:
        """Computes the scores of a tile and, if they are capped, the slope of the cap."""
        softcap, slope = self.options.softcap, None
        query, key = query.to(self.table.dtype), key.to(self.table.dtype)  # else the product is rounded to theirs
        s = torch.baddbmm(query.new_empty(1, 1, 1), query, key.mT, beta=0, alpha=self.options.scale)
        if softcap:
            s = s.div_(softcap).tanh_()
            slope = 1 - s * s
            s *= softcap
        smallest, largest = self._distances(rows, columns)
        if self.biased or smallest < 0 or 0 < self.options.window <= largest:
            height, width = rows.stop - rows.start, columns.stop - columns.start
            pieces = self.table.unfold(-1, width, 1)
            x = self.largest - largest
            self._by_head(s, rows).add_(pieces[:, x : x + height].flip(1))
        if self.documents is not None:
            queries = slice(rows.start + self.options.start, rows.stop + self.options.start)
            other = self.documents[:, queries, None] != self.documents[:, None, columns]
            self._by_head(s, rows).masked_fill_(other[:, None], MASKED)
        return s, slope

    def add_diagonals(self, dtable: Tensor, ds: Tensor, rows: slice, columns: slice) -> None:
        """Adds the sums of a tile's diagonals to the gradient of the table, in place."""
        ds = self._by_head(ds, rows).sum(0)
        _, height, width = ds.shape
        # Read in rows one longer than they are written, each row lies one to the left of the row above.
        skewed = pad(pad(ds, (height - 1, 0)).flatten(1), (0, height)).view(-1, height, height + width)
        x = self.largest - self._distances(rows, columns)[1]
        dtable[:, x : x + height + width - 1] += skewed.sum(1)[:, :-1]

    def bias_gradient(self, dtable: Tensor, bias: Tensor) -> Tensor:
        """Computes the gradient of the bias from that of the table."""
        dbias = torch.zeros_like(bias)
        dbias[:, : self.visible.stop - self.visible.start] = dtable[:, self.visible].flip(-1)
        return dbias

    def _meet(self, rows: slice, columns: slice) -> bool:
        smallest, largest = self._distances(rows, columns)
        return largest >= 0 and (not self.options.window or smallest < self.options.window)

    def _distances(self, rows: slice, columns: slice) -> tuple[int, int]:
        """Returns the smallest and the largest distance in a tile."""
        start = self.options.start
        return start + rows.start - columns.stop + 1, start + rows.stop - 1 - columns.start

    def _by_head(self, s: Tensor, rows: slice) -> Tensor:
        """Returns [batch, heads, rows, columns]."""
        return s.view(self.batch, -1, rows.stop - rows.start, s.shape[-1])


def _slices(length: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, length)) for first in range(0, length, size)]


def _by_group(x: Tensor, k: Tensor) -> Tensor:
    """Returns [batch kv_heads, heads / kv_heads, time, width]."""
    batch, time, heads, width = x.shape
    return x.transpose(1, 2).reshape(batch * k.shape[2], heads // k.shape[2], time, width)


def _by_position(x: Tensor, batch: int) -> Tensor:
    """Returns [batch, time, heads, width]."""
    return x.flatten(0, 1).unflatten(0, (batch, -1)).transpose(1, 2)


def _tile(x: Tensor, rows: slice) -> Tensor:
    """Returns the rows of all queries that share a key."""
    return x[:, :, rows].flatten(1, 2)
