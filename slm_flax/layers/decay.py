"""Products of the vectors of a chunk, decayed by all that lies between them."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

X = Float[Array, "chunks size x_kinds width"]
Y = Float[Array, "chunks size y_kinds width"]
Products = Float[Array, "chunks size*x_kinds size*y_kinds"]
Logs = Float[Array, "chunks size gates"]
ByChannel = Float[Array, "chunks size width"]


class ScalarDecay:
    """Decays the products of a chunk by one number per position (Mamba-2's segment sums; Dao and Gu 2024).

    Paper: https://arxiv.org/abs/2405.21060, section 6.

        product[i, j] = (x_i . y_j) exp(g_{j+1} + ... + g_i), 0 for j > i

    Each sum is added up by itself, and none is a difference of two: a strong decay costs no digits, and -inf, which
    resets the state, is as good as any other number. Products have the kinds of x beside each other in a row's
    place, and those of y in a column's.

    Args:
      g: log decays, [chunks, size, 1], at most 0.
    """

    def __init__(self, g: Logs):
        size = g.shape[1]
        self.strict = np.tri(size, k=-1, dtype=bool)
        sums = jnp.where(self.strict, g, 0).cumsum(1)
        self.from_start = jnp.exp(g.cumsum(1))
        """What is left at each position of the state before the chunk: [chunks, size, 1]."""
        self.to_end = jnp.exp(sums[:, -1, :, None])
        """What the end of the chunk has left of each position: [chunks, size, 1]."""
        self.between = jnp.tril(jnp.exp(sums))[:, :, None, :, None]

    def products(self, x: X, y: Y) -> Products:
        """Computes the decayed products of all x with all y."""
        return self._decayed(x, y, _rows(x) @ _rows(y).mT)

    def gradients(
        self, x: X, y: Y, dproducts: Products, dfrom_start: ByChannel, dto_end: ByChannel
    ) -> tuple[X, Y, Logs]:
        """Computes the gradients of x, y and g.

        Args:
          x: as for `products`.
          y: as for `products`.
          dproducts: the gradient of the products.
          dfrom_start: the gradient of log from_start, by channel.
          dto_end: the gradient of log to_end, by channel.
        """
        size = x.shape[1]
        decayed = self._decayed(x, y, dproducts)
        dx, dy = decayed @ _rows(y), decayed.mT @ _rows(x)
        dsums = ((_rows(x) @ _rows(y).mT) * decayed).reshape(-1, size, x.shape[2], size, y.shape[2]).sum((2, 4))
        dsums = dsums.at[:, -1].add(dto_end.sum(-1))
        later = np.triu(np.ones((size, size), dsums.dtype))
        dg = jnp.where(self.strict, later @ dsums, 0).sum(-1) + dfrom_start.sum(-1) @ later.T
        return dx.reshape(x.shape), dy.reshape(y.shape), dg[..., None]

    def _decayed(self, x: X, y: Y, products: Products) -> Products:
        by_kind = products.reshape(len(x), x.shape[1], x.shape[2], y.shape[1], y.shape[2])
        return (by_kind * self.between).reshape(products.shape)


class ChannelDecay:
    """Decays the products of a chunk by one number per position and channel, as GLA and Kimi Delta Attention do.

    Papers: Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4; https://arxiv.org/abs/2510.26692.

        product[i, j] = sum_d x_id y_jd exp(g_{j+1,d} + ... + g_id), 0 for j > i

    The papers take the exponent apart as G_i - G_j, and bound the parts in blocks. Here a chunk is halved, and its
    halves again, down to single positions. The products of a later half with the earlier one are one matrix product:

        (x_i exp(g_middle + ... + g_i)) . (y_j exp(g_{j+1} + ... + g_{middle-1}))

    So no exponent is positive, and each is a sum: see `ScalarDecay`, whose arguments and results these are.

    Args:
      g: log decays, [chunks, size, width], at most 0; size is a power of two.
    """

    def __init__(self, g: Logs):
        start, end = g, jnp.zeros_like(g)  # in blocks of one position
        self.levels: list[tuple[Array, Array]] = []
        """exp of the sums from the start of each later half, and to the end of each earlier half; smallest first."""
        for size in _sizes(g):
            (start_0, start_1), (end_0, end_1) = _halves(start, size), _halves(end, size)
            self.levels.append((jnp.exp(start_1), jnp.exp(end_0)))
            start = _whole(start_0, start_1 + start_0[:, :, -1:])
            end = _whole(end_0 + start_1[:, :, -1:], end_1)
        self.from_start, self.to_end = jnp.exp(start), jnp.exp(end)

    def products(self, x: X, y: Y) -> Products:
        """Computes the decayed products of all x with all y."""
        p = x @ y.mT  # [chunks, blocks, rows of a block, columns of a block]
        for level in self.levels:
            later, earlier = _later(x, level), _earlier(y, level)
            p_0, p_1 = p[:, ::2], p[:, 1::2]
            upper = jnp.pad(p_0, [(0, 0)] * 3 + [(0, p_0.shape[3])])
            p = jnp.concatenate([upper, jnp.concatenate([later @ earlier.mT, p_1], 3)], 2)
        return p[:, 0]

    def gradients(
        self, x: X, y: Y, dproducts: Products, dfrom_start: ByChannel, dto_end: ByChannel
    ) -> tuple[X, Y, Logs]:
        """Computes the gradients of x, y and g: see `ScalarDecay`."""
        dx, dy, dstart, dend = jnp.zeros_like(x), jnp.zeros_like(y), dfrom_start, dto_end
        dp = dproducts[:, None]
        for size, level in zip(reversed(_sizes(dstart)), reversed(self.levels), strict=True):
            (start_0, start_1), (end_0, end_1) = _halves(dstart, size), _halves(dend, size)
            start_0 = start_0.at[:, :, -1].add(start_1.sum(2))
            start_1 = start_1.at[:, :, -1].add(end_0.sum(2))
            (upper, lower), columns = jnp.split(dp, 2, 2), size * y.shape[2]
            (dx_0, dx_1), (dy_0, dy_1) = _halves(dx, size), _halves(dy, size)
            x_1, y_0 = _halves(x, size)[1], _halves(y, size)[0]
            below = lower[..., :columns]
            dlater = (below @ _earlier(y, level)).reshape(x_1.shape) * level[0][:, :, :, None]
            dearlier = (below.mT @ _later(x, level)).reshape(y_0.shape) * level[1][:, :, :, None]
            dx, dy = _whole(dx_0, dx_1 + dlater), _whole(dy_0 + dearlier, dy_1)
            dstart = _whole(start_0, start_1 + (x_1 * dlater).sum(3))
            dend = _whole(end_0 + (y_0 * dearlier).sum(3), end_1)
            dp = jnp.stack([upper[..., :columns], lower[..., columns:]], 2)
            dp = dp.reshape(len(dp), -1, *dp.shape[3:])
        return dx + dp @ y, dy + dp.mT @ x, dstart


def _sizes(g: Logs) -> list[int]:
    """Lists the sizes of the halves: 1, 2, 4, ..."""
    return [1 << level for level in range(g.shape[1].bit_length() - 1)]


def _halves(x: Array, size: int) -> tuple[Array, Array]:
    """Returns the earlier and the later halves of blocks: [chunks, blocks, size, ...]."""
    blocks = x.reshape(len(x), -1, 2, size, *x.shape[2:])
    return blocks[:, :, 0], blocks[:, :, 1]


def _whole(earlier: Array, later: Array) -> Array:
    """Joins halves: [chunks, size, ...]."""
    return jnp.stack([earlier, later], 2).reshape(len(earlier), -1, *earlier.shape[3:])


def _rows(x: X) -> Array:
    return x.reshape(len(x), -1, x.shape[3])


def _later(x: X, level: tuple[Array, Array]) -> Array:
    """Decays the later halves from their start: [chunks, blocks, rows, width]."""
    decayed = _halves(x, level[0].shape[2])[1] * level[0][:, :, :, None]
    return decayed.reshape(*decayed.shape[:2], -1, x.shape[3])


def _earlier(y: Y, level: tuple[Array, Array]) -> Array:
    """Decays the earlier halves to their end: [chunks, blocks, columns, width]."""
    decayed = _halves(y, level[1].shape[2])[0] * level[1][:, :, :, None]
    return decayed.reshape(*decayed.shape[:2], -1, y.shape[3])
