"""Products of the vectors of a chunk, decayed by all that lies between them."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

X = Float[Tensor, "chunks size x_kinds width"]
Y = Float[Tensor, "chunks size y_kinds width"]
Products = Float[Tensor, "chunks size*x_kinds size*y_kinds"]
Logs = Float[Tensor, "chunks size gates"]
ByChannel = Float[Tensor, "chunks size width"]


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
        self.strict = torch.ones(size, size, dtype=torch.bool, device=g.device).tril(-1)
        sums = torch.where(self.strict, g, 0).cumsum(1)
        self.from_start = g.cumsum(1).exp()
        """What is left at each position of the state before the chunk: [chunks, size, 1]."""
        self.to_end = sums[:, -1, :, None].exp()
        """What the end of the chunk has left of each position: [chunks, size, 1]."""
        self.between = sums.exp_().tril()[:, :, None, :, None]

    def products(self, x: X, y: Y) -> Products:
        """Computes the decayed products of all x with all y."""
        return self._decayed(x, y, x.flatten(1, 2) @ y.flatten(1, 2).mT)

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
        products = x.flatten(1, 2) @ y.flatten(1, 2).mT
        decayed = self._decayed(x, y, dproducts)
        dx, dy = decayed @ y.flatten(1, 2), decayed.mT @ x.flatten(1, 2)
        dsums = (products.mul_(decayed)).view(-1, size, x.shape[2], size, y.shape[2]).sum((2, 4))
        dsums[:, -1] += dto_end.sum(-1)
        later = dsums.new_ones(size, size).triu()
        dg = torch.where(self.strict, later @ dsums, 0).sum(-1) + dfrom_start.sum(-1) @ later.mT
        return dx.view_as(x), dy.view_as(y), dg[..., None]

    def _decayed(self, x: X, y: Y, products: Products) -> Products:
        by_kind = products.view(len(x), x.shape[1], x.shape[2], y.shape[1], y.shape[2])
        return (by_kind * self.between).view_as(products)


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
        start, end = g, torch.zeros_like(g)  # in blocks of one position
        self.levels: list[tuple[Tensor, Tensor]] = []
        """exp of the sums from the start of each later half, and to the end of each earlier half; smallest first."""
        for size in _sizes(g):
            (start_0, start_1), (end_0, end_1) = _halves(start, size), _halves(end, size)
            self.levels.append((start_1.exp(), end_0.exp()))
            start = torch.cat([start_0, start_1 + start_0[:, :, -1:]], 2).view_as(g)
            end = torch.cat([end_0 + start_1[:, :, -1:], end_1], 2).view_as(g)
        self.from_start, self.to_end = start.exp(), end.exp()

    def products(self, x: X, y: Y) -> Products:
        """Computes the decayed products of all x with all y."""
        p = x @ y.mT  # [chunks, blocks, rows of a block, columns of a block]
        for level in self.levels:
            later, earlier = _later(x, level), _earlier(y, level)
            p_0, p_1 = p[:, ::2], p[:, 1::2]
            p = torch.cat([pad(p_0, (0, p_0.shape[3])), torch.cat([later @ earlier.mT, p_1], 3)], 2)
        return p[:, 0]

    def gradients(
        self, x: X, y: Y, dproducts: Products, dfrom_start: ByChannel, dto_end: ByChannel
    ) -> tuple[X, Y, Logs]:
        """Computes the gradients of x, y and g: see `ScalarDecay`."""
        dx, dy, dstart, dend = torch.zeros_like(x), torch.zeros_like(y), dfrom_start.clone(), dto_end.clone()
        dp = dproducts[:, None]
        for size, level in zip(reversed(_sizes(dstart)), reversed(self.levels), strict=True):
            (start_0, start_1), (end_0, _) = _halves(dstart, size), _halves(dend, size)
            start_0[:, :, -1] += start_1.sum(2)
            start_1[:, :, -1] += end_0.sum(2)
            (upper, lower), columns = dp.chunk(2, 2), size * y.shape[2]
            (x_1, dx_1), (y_0, dy_0) = ([_halves(z, size)[1] for z in (x, dx)], [_halves(z, size)[0] for z in (y, dy)])
            below = lower[..., :columns]
            dlater = (below @ _earlier(y, level)).view_as(x_1) * level[0][:, :, :, None]
            dearlier = (below.mT @ _later(x, level)).view_as(y_0) * level[1][:, :, :, None]
            dx_1 += dlater
            dy_0 += dearlier
            start_1 += (x_1 * dlater).sum(3)
            end_0 += (y_0 * dearlier).sum(3)
            dp = torch.stack([upper[..., :columns], lower[..., columns:]], 2).flatten(1, 2)
        return dx.add_(dp @ y), dy.add_(dp.mT @ x), dstart


def _sizes(g: Logs) -> list[int]:
    """Lists the sizes of the halves: 1, 2, 4, ..."""
    return [1 << level for level in range(g.shape[1].bit_length() - 1)]


def _halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns views of the earlier and the later halves of blocks: [chunks, blocks, size, ...]."""
    earlier, later = x.unflatten(1, (-1, 2, size)).unbind(2)
    return earlier, later


def _later(x: X, level: tuple[Tensor, Tensor]) -> Tensor:
    """Decays the later halves from their start: [chunks, blocks, rows, width]."""
    return (_halves(x, level[0].shape[2])[1] * level[0][:, :, :, None]).flatten(2, 3)


def _earlier(y: Y, level: tuple[Tensor, Tensor]) -> Tensor:
    """Decays the earlier halves to their end: [chunks, blocks, columns, width]."""
    return (_halves(y, level[1].shape[2])[0] * level[1][:, :, :, None]).flatten(2, 3)
