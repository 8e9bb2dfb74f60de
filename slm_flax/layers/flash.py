"""FlashAttention: softmax attention in tiles."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jax.lax import dynamic_slice_in_dim, dynamic_update_slice_in_dim, fori_loop
from jaxtyping import Float, Int

from slm_flax.layers.dot_product import MASKED
from slm_flax.numerics import wide, wide_product

TILE, GPU_TILE = 128, 256
"""Queries and keys of a tile. A small tile fits in a CPU's cache; a large one needs fewer operations on a GPU."""

Index = int | Array

NOTHING = MASKED / 2
"""L of no keys: far below L of any visible key, and far above L of masked keys, so that these weigh exactly 0."""


def flash(
    q: Float[Array, "batch time heads head_dim"],
    k: Float[Array, "batch keys kv_heads head_dim"],
    v: Float[Array, "batch keys kv_heads v_dim"],
    *,
    start: int | Array,
    keys_start: int | Array = 0,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    bias: Float[Array, "heads distances"] | None = None,
    sinks: Float[Array, "heads"] | None = None,
    documents: Int[Array, "batch keys"] | None = None,
) -> Float[Array, "batch time heads v_dim"]:
    """Computes softmax attention in tiles of scores, so that memory is linear in the context.

    The function and its arguments are those of `dot_product` (FlashAttention; Dao et al. 2022,
    https://arxiv.org/abs/2205.14135; Dao 2023, https://arxiv.org/abs/2307.08691). The forward pass mixes one tile of
    keys after the other into the result of a tile of queries: an output y, and the logarithm L of its softmax's sum.

        s = q k^T scale;  l = log sum exp(s);  L' = log(exp(L) + exp(l))
        y' = exp(L - L') y + exp(l - L') softmax(s) v

    The backward pass computes the tiles again, from q, k and the last L:

        p = exp(s - L);  dv = p^T dy;  ds = p (dy v^T - sum(dy y));  dq = ds k scale;  dk = ds^T q scale

    L starts from the sink, or from the logarithm of almost nothing. A bias is added to s by distance. The gradient of
    the bias at a distance is the sum of ds along that diagonal. Tiles without a visible key are left out: loops over
    tiles end at the mask, whose place may be known only at run time. Keys of other documents get MASKED.
    """
    (batch, time, heads, _), (keys, kv_heads) = q.shape, k.shape[1:3]
    size = TILE if jax.default_backend() == "cpu" else GPU_TILE
    height = min(size, time)
    width = min(size * size // height, keys)  # few queries take wide tiles
    options = Options(scale, window, softcap, height, width, heads, keys)
    first = jnp.full((heads,), NOTHING) if sinks is None else sinks
    first = jnp.broadcast_to(first.astype(wide(q.dtype))[:, None, None], (batch, heads, height, 1))
    first = rearrange(first, "b (g r) t 1 -> (b g) (r t) 1", g=kv_heads)
    q, k, v = _by_tile(q, height, kv_heads), _by_tile(k, width, kv_heads), _by_tile(v, width, kv_heads)
    unused = jnp.maximum(-keys_start, 0)  # keys at positions before 0 are hidden
    numbers = None
    if documents is not None:
        queries = documents[:, start - keys_start :][:, :time]
        numbers = _by_tile(queries[..., None, None], height, 1), _by_tile(documents[..., None, None], width, 1)
    y = _attend(options, q, k, v, bias, first, jnp.asarray(start - keys_start), unused, numbers)
    return rearrange(y, "n (b g) (r t) d -> b (n t) (g r) d", g=kv_heads, t=height)[:, :time]


class Options(NamedTuple):
    """The settings that are the same for all tiles."""

    scale: float
    window: int
    softcap: float
    height: int
    """Queries of a tile."""
    width: int
    """Keys of a tile."""
    heads: int
    keys: int


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options, q, k, v, bias, first, start, unused, numbers):
    """The first key stands at 0, the first query at `start`; the `unused` first keys are hidden.

    `numbers` are the documents of queries and of keys, by tile, or None.
    """
    return _forward(options, q, k, v, bias, first, start, unused, numbers)[0]


def _forward(options, q, k, v, bias, first, start, unused, numbers):
    dtype = first.dtype
    tiles = Tiles(options, bias, start, unused, numbers, dtype)

    def rows(i):
        def mix(j, so_far):
            mixed, log_sum = so_far
            s, _ = tiles.scores(q[i], k[j], i, j)
            top = s.max(-1, keepdims=True)
            p = jnp.exp(s - top)
            both = jnp.logaddexp(log_sum, top + jnp.log(p.sum(-1, keepdims=True)))
            mixed = jnp.exp(log_sum - both) * mixed + jnp.exp(top - both) * (p.astype(v.dtype) @ v[j])
            return mixed, both

        nothing = jnp.zeros((*q.shape[1:3], v.shape[-1]), dtype)
        mixed, log_sum = fori_loop(*tiles.seen_by(i, len(k)), mix, (nothing, first))
        return mixed.astype(v.dtype), log_sum

    y, log_sum = jax.lax.map(rows, jnp.arange(len(q)))
    return y, (q, k, v, bias, first, start, unused, numbers, y, log_sum)


def _forward_and_save(options, *inputs):
    """Also saves, as a structure, whether the bias needs a gradient: ALiBi's does not."""
    learned = () if inputs[3] is not None and inputs[3].perturbed else None
    y, saved = _forward(options, *jax.tree.map(lambda x: x.value, inputs))
    return y, (saved, learned)


def _backward(options, saved, dy):
    (q, k, v, bias, first, start, unused, numbers, y, log_sum), learned = saved
    dtype = first.dtype
    tiles = Tiles(options, bias, start, unused, numbers, dtype)
    mean = (dy.astype(dtype) * y).sum(-1, keepdims=True)

    def columns(so_far, j):
        def add(i, so_far):
            dq, dtable, dk, dv = so_far
            s, slope = tiles.scores(q[i], k[j], i, j)
            p = jnp.exp(s - log_sum[i])
            dv += p.astype(v.dtype).mT @ dy[i]
            ds = p * ((dy[i] @ v[j].mT).astype(dtype) - mean[i])
            if learned is not None:
                dtable = tiles.add_diagonals(dtable, ds, i, j)
            ds = (ds * slope * options.scale).astype(q.dtype)
            return dq.at[i].add((ds @ k[j]).astype(dtype)), dtable, dk + ds.mT @ q[i], dv

        zeros = jnp.zeros(k.shape[1:], dtype), jnp.zeros(v.shape[1:], dtype)
        *so_far, dk, dv = fori_loop(*tiles.seeing(j, len(q)), add, (*so_far, *zeros))
        return so_far, (dk.astype(k.dtype), dv.astype(v.dtype))

    zeros = jnp.zeros(q.shape, dtype), None if learned is None or tiles.table is None else jnp.zeros_like(tiles.table)
    (dq, dtable), (dk, dv) = jax.lax.scan(columns, [*zeros], jnp.arange(len(k)))
    dbias = None if learned is None else tiles.bias_gradient(dtable, bias)
    dfirst = -(jnp.exp(first - log_sum) * mean).sum(0)
    return dq.astype(q.dtype), dk, dv, dbias, dfirst, None, None, None


_attend.defvjp(_forward_and_save, _backward, symbolic_zeros=True)


class Tiles:
    """The tiles of scores: which queries (rows) meet which keys (columns), and their scores.

    `table`, [heads, distances], is the bias. Its largest distance comes first. So each row of a tile is a slice of the
    table, which starts one to the left of the slice above. Zeros on both sides are for the hidden part of tiles.
    """

    def __init__(
        self,
        options: Options,
        bias: Array | None,
        start: Index,
        unused: Index,
        numbers: tuple[Array, Array] | None,
        dtype: np.dtype,
    ):
        self.options, self.start, self.unused, self.numbers, self.dtype = options, start, unused, numbers, dtype
        self.table = None
        if bias is not None:
            hidden = options.height + options.width - 1
            self.table = jnp.pad(bias[:, ::-1].astype(dtype), ((0, 0), (hidden, hidden)))

    def seen_by(self, i: Index, count: int) -> tuple[Index, Index]:
        """Returns the first of the `count` tiles of keys that queries `i` see, and the one after the last."""
        height, width, window = self.options.height, self.options.width, self.options.window
        position = self.start + i * height
        oldest = jnp.maximum(position - window + 1, self.unused) if window else self.unused
        return oldest // width, jnp.minimum((position + height - 1) // width + 1, count)

    def seeing(self, j: Index, count: int) -> tuple[Index, Index]:
        """Returns the first of the `count` tiles of queries that see keys `j`, and the one after the last."""
        height, width, window = self.options.height, self.options.width, self.options.window
        position = j * width - self.start
        end = (position + width + window - 2) // height + 1 if window else count
        used = (j + 1) * width > self.unused
        return jnp.maximum(position // height, 0), jnp.where(used, jnp.minimum(end, count), 0)

    def scores(self, query: Array, key: Array, i: Index, j: Index) -> tuple[Array, Array | int]:
        """Computes the scores of a tile, and the slope of their cap."""
        softcap, window, slope = self.options.softcap, self.options.window, 1
        s = wide_product(query, key.mT) * self.options.scale
        if softcap:
            s = jnp.tanh(s / softcap)
            s, slope = softcap * s, 1 - s * s
        by_head = self._by_head(s)
        if self.table is not None:
            by_head += self._diagonals(self.table, i, j)
        column = j * self.options.width + jnp.arange(self.options.width)
        distance = self.start + i * self.options.height + jnp.arange(self.options.height)[:, None] - column
        mask = (distance >= 0) & (column >= self.unused) & (column < self.options.keys)
        if window:
            mask &= distance < window
        if self.numbers is not None:
            queries, keys = self.numbers
            mask = mask & (queries[i] == keys[j].mT)[:, None]
        return jnp.where(mask, by_head, MASKED).reshape(s.shape), slope

    def _diagonals(self, table: Array, i: Index, j: Index) -> Array:
        """Returns the bias of a tile."""
        height, width = self.options.height, self.options.width
        piece = dynamic_slice_in_dim(table, self._corner(table, i, j), height + width, axis=1)
        # Read in rows one shorter than they are written, each row lies one to the right of the row above.
        rows = jnp.broadcast_to(piece[:, None], (len(piece), height, height + width)).reshape(len(piece), -1)
        skewed = rows[:, : height * (height + width - 1)].reshape(len(piece), height, -1)
        return skewed[:, :, height - 1 :]

    def add_diagonals(self, dtable: Array, ds: Array, i: Index, j: Index) -> Array:
        """Adds the sums of a tile's diagonals to the gradient of the table."""
        height, width = self.options.height, self.options.width
        ds = self._by_head(ds).sum(0)
        # Read in rows one longer than they are written, each row lies one to the left of the row above.
        rows = jnp.pad(ds, ((0, 0), (0, 0), (height - 1, 0))).reshape(len(ds), -1)
        skewed = jnp.pad(rows, ((0, 0), (0, height))).reshape(len(ds), height, height + width)
        corner = self._corner(dtable, i, j)
        sums = dynamic_slice_in_dim(dtable, corner, height + width, axis=1) + skewed.sum(1)
        return dynamic_update_slice_in_dim(dtable, sums, corner, axis=1)

    def bias_gradient(self, dtable: Array, bias: Array) -> Array:
        """Computes the gradient of the bias from that of the table."""
        hidden = self.options.height + self.options.width - 1
        return dtable[:, hidden:-hidden][:, ::-1].astype(bias.dtype)

    def _corner(self, table: Array, i: Index, j: Index) -> Index:
        """Returns the index in the table of the distance of a tile's last query from its first key."""
        largest = self.start + (i + 1) * self.options.height - 1 - j * self.options.width
        hidden = self.options.height + self.options.width - 1
        return table.shape[1] - hidden - 1 - largest

    def _by_head(self, s: Array) -> Array:
        """Returns [batch, heads, rows, columns]."""
        return s.reshape(-1, self.options.heads, self.options.height, s.shape[-1])


def _by_tile(x: Array, size: int, kv_heads: int) -> Array:
    """Returns [tiles, batch kv_heads, heads / kv_heads size, width]: all of a tile that share a head of keys."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, 0)))
    return rearrange(x, "b (n t) (g r) d -> n (b g) (r t) d", t=size, g=kv_heads)
