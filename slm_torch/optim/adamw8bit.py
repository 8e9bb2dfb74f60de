"""AdamW with both moments in 8 bits, by blocks (Dettmers et al. 2021, https://arxiv.org/abs/2110.02861, section 2).

m and v are decoded, updated as in `adamw`, used, and only then encoded again: m by the signed table of
`quantization.blockwise`, v by the unsigned one. Parameters of fewer than `quantised_from` values are AdamW's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_core.quantization.blockwise import n_blocks, signed_code, unsigned_code
from slm_torch.optim.adamw import AdamW
from slm_torch.optim.base import Optimizer
from slm_torch.quantization.blockwise import Quantiser

SLICE = 2**20
"""Values of a parameter that are worked on at once: a whole embedding's moments never stand decoded."""


class AdamW8bit(Optimizer):
    """State: "m/NAME", uint8 of the parameter's shape; "m_scale/NAME", [blocks] of its dtype; v likewise."""

    def __init__(self, optim: Optim, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        large = {name: p for name, p in params.items() if p.numel() >= optim.quantised_from}
        super().__init__(large, groups)
        self.rest = AdamW(optim, {name: p for name, p in params.items() if name not in large}, groups)
        self.betas, self.eps, self.block = optim.betas, optim.eps, optim.quantised_block
        like = next(iter(params.values()))
        self.m, self.v = Quantiser(signed_code(), self.block, like), Quantiser(unsigned_code(), self.block, like)
        for name, p in large.items():
            for part, quantiser in (("m", self.m), ("v", self.v)):
                self.state[f"{part}/{name}"] = torch.full_like(p, quantiser.zero, dtype=torch.uint8)
                self.state[f"{part}_scale/{name}"] = p.new_ones(n_blocks(p.numel(), self.block))
        self.state |= self.rest.state  # one count for both

    def update(self, lr: float) -> None:
        self.rest.update(lr)
        self.decay(lr)
        corrections = [1 - beta ** float(self.state["count"]) for beta in self.betas]
        n = max(SLICE // self.block, 1)
        for (name, p), rate in zip(self.params.items(), self.lr_multipliers, strict=True):
            held = [p.view(-1), *(self.state[f"{part}/{name}"].view(-1) for part in ("m", "m_scale", "v", "v_scale"))]
            grad = p.grad.reshape(-1)
            for at in range(0, n_blocks(len(grad), self.block), n):
                self.step(grad, lr * rate, corrections, at, n, held)

    def step(self, g: Tensor, rate: float, corrections: list[float], at: int, n: int, held: list[Tensor]) -> None:
        """Updates a parameter, the codes and scales of m, those of v, all flat: at most `n` blocks from `at` on."""
        (b1, b2), values, scales = self.betas, slice(at * self.block, (at + n) * self.block), slice(at, at + n)
        places = (values, values, scales, values, scales)
        p, *moments = (x[place] for x, place in zip(held, places, strict=True))
        g = g[values]
        m = self.m.dequantise(*moments[:2]).mul_(b1).add_(g, alpha=1 - b1)
        v = self.v.dequantise(*moments[2:]).mul_(b2).addcmul_(g, g, value=1 - b2)
        p.addcdiv_(m, v.sqrt().div_(corrections[1] ** 0.5).add_(self.eps), value=-rate / corrections[0])
        for stored, value in zip(moments, (*self.m.quantise(m), *self.v.quantise(v)), strict=True):
            stored.copy_(value)
