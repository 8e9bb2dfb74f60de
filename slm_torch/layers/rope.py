"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864), half-split layout.

    angle[t, i] = t / scaling_factor * theta^(-2i / rotary),  i < rotary / 2
    (x[i], x[i + rotary/2])' = (x[i] cos - x[i + rotary/2] sin, x[i + rotary/2] cos + x[i] sin)

The first rotary = round(fraction * head_dim) features of a head turn, the rest pass (GPT-NeoX,
https://arxiv.org/abs/2204.06745). Linear scaling divides positions (Chen et al. 2023,
https://arxiv.org/abs/2306.15595). Angles are float64 on the host, so that both twins turn by the same amounts and late
positions lose nothing.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Model
from slm_torch.numerics import wide


class RoPE(nn.Module):
    site = "attention"

    def __init__(self, model: Model, context: int):
        super().__init__()
        position = model.position
        self.rotary = round(position.fraction * model.attention.head_dim)
        frequency = position.theta ** (-np.arange(0, self.rotary, 2) / self.rotary)
        angle = np.outer(np.arange(context) / position.scaling_factor, frequency)
        self.register_buffer("cos", torch.from_numpy(np.cos(angle)), persistent=False)
        self.register_buffer("sin", torch.from_numpy(np.sin(angle)), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch time heads head_dim"], start: int
    ) -> Float[Tensor, "batch time heads head_dim"]:
        dtype = wide(x.dtype)
        window = slice(start, start + x.shape[1])
        cos, sin = self.cos[window, None].to(dtype), self.sin[window, None].to(dtype)
        turned, rest = x[..., : self.rotary].to(dtype), x[..., self.rotary :]
        a, b = turned.chunk(2, dim=-1)
        return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest], dim=-1)
