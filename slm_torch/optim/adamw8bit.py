"""AdamW with both moments in 8 bits, by blocks."""

import torch
from torch import Tensor

from slm_core.config import Optim
from slm_core.quantization.blockwise import n_blocks, signed_code, unsigned_code
from slm_torch.optim.adamw import AdamW
from slm_torch.optim.base import Groups, Optimizer, Params, decay
from slm_torch.quantization.blockwise import Quantiser

SLICE = 2**20
"""How many values of a parameter are updated at once: an embedding's moments are never dequantised as a whole."""


class AdamW8bit(Optimizer):
    """AdamW with both moments in 8 bits, by blocks.

    Paper: Dettmers et al. 2021, https://arxiv.org/abs/2110.02861, section 2. PyTorch lacks this optimizer.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    p <- p (1 - lr decay) - lr lr_multiplier / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    m and v are dequantised, updated, used, and only then quantised again: m by the signed table of
    `quantization.blockwise`, v by the unsigned one. Parameters of fewer than `quantised_from` values are AdamW's.

    State of a large parameter, by canonical name: "m/NAME", uint8 of its shape, and "m_scale/NAME", [blocks] of its
    dtype; v likewise. State of a small one: AdamW's. Both share "count".
    """

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        large = {name: p for name, p in params.items() if p.numel() >= optim.quantised_from}
        super().__init__(large, groups)
        self.small = AdamW(optim, {name: p for name, p in params.items() if name not in large}, groups)
        self.join(self.small)
        self.betas, self.eps, self.block = optim.betas, optim.eps, optim.quantised_block
        like = next(iter(params.values()))
        self.m, self.v = Quantiser(signed_code(), self.block, like), Quantiser(unsigned_code(), self.block, like)
        for p in large.values():
            for part, quantiser in (("m", self.m), ("v", self.v)):
                self.state[p][part] = torch.full_like(p, quantiser.zero, dtype=torch.uint8)
                self.state[p][f"{part}_scale"] = p.new_ones(n_blocks(p.numel(), self.block))

    def update(self) -> None:
        """Does one update, by the formula of the class."""
        self.small.step()
        corrections = [1 - beta ** float(self.shared["count"]) for beta in self.betas]
        n = max(SLICE // self.block, 1)
        for group in self.updated_groups:
            decay(group)
            for p in group["params"]:
                flat = [p.view(-1), *(self.state[p][part].view(-1) for part in ("m", "m_scale", "v", "v_scale"))]
                grad = p.grad.reshape(-1)
                for at in range(0, n_blocks(len(grad), self.block), n):
                    self.update_blocks(grad, group["lr"], corrections, at, n, flat)

    def update_blocks(
        self, g: Tensor, lr: float, corrections: list[float], at: int, n: int, flat: list[Tensor]
    ) -> None:
        """Updates at most `n` blocks from block `at` on.

        Args:
          g: the gradient, flat.
          lr: of the parameter's group.
          corrections: 1 - b1^t and 1 - b2^t.
          at: the first block.
          n: the largest number of blocks.
          flat: the parameter, the codes and scales of m, and those of v.
        """
        (b1, b2), values, scales = self.betas, slice(at * self.block, (at + n) * self.block), slice(at, at + n)
        places = (values, values, scales, values, scales)
        p, *moments = (x[place] for x, place in zip(flat, places, strict=True))
        g = g[values]
        m = self.m.dequantise(*moments[:2]).mul_(b1).add_(g, alpha=1 - b1)
        v = self.v.dequantise(*moments[2:]).mul_(b2).addcmul_(g, g, value=1 - b2)
        p.addcdiv_(m, v.sqrt().div_(corrections[1] ** 0.5).add_(self.eps), value=-lr / corrections[0])
        for stored, value in zip(moments, (*self.m.quantise(m), *self.v.quantise(v)), strict=True):
            stored.copy_(value)
