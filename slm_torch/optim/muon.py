"""Muon, orthogonalised momentum (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), for matrices; AdamW
for every other parameter, at the same learning rate.

m <- mu m + (1 - mu) g;  u = mu m + (1 - mu) g (nesterov) or m;  o = orthogonal(u), close to U V^T of u = U S V^T
p <- p (1 - lr decay);  p <- p - lr rate scale o

orthogonal: x = u / (|u| + 1e-7) in the Frobenius norm, then `newton_schulz_steps` times
x <- a x + (b x x^T + c (x x^T)^2) x,  (a, b, c) = (3.4445, -4.7750, 2.0315)
which takes every singular value to about 1 (0.7 to 1.2). scale: 0.2 sqrt(max(in, out)) (Liu et al. 2025,
https://arxiv.org/abs/2502.16982) or sqrt(max(1, out / in)). Experts [expert, in, out] are matrices one by one.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_torch.optim.adamw import AdamW
from slm_torch.optim.base import Optimizer

SCALES = {
    "rms": lambda d_in, d_out: 0.2 * max(d_in, d_out) ** 0.5,
    "spectral": lambda d_in, d_out: max(1.0, d_out / d_in) ** 0.5,
}


class Muon(Optimizer):
    parts = ("m",)

    def __init__(self, optim: Optim, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        matrices = {name: p for name, p in params.items() if groups[name].role == "matrix" and p.ndim >= 2}
        super().__init__(matrices, groups)
        self.rest = AdamW(optim, {name: p for name, p in params.items() if name not in matrices}, groups)
        self.momentum, self.nesterov = optim.momentum, optim.nesterov
        self.steps, self.scale = optim.newton_schulz_steps, SCALES[optim.muon_scale]
        self.coefficients, self.eps = (3.4445, -4.7750, 2.0315), 1e-7
        self.state |= self.rest.state  # one count for both

    def update(self, lr: float) -> None:
        self.rest.update(lr)
        self.decay(lr)
        grads, m = self.grads(), self.part("m")
        torch._foreach_lerp_(m, grads, 1 - self.momentum)
        if self.nesterov:
            torch._foreach_lerp_(grads, m, self.momentum)
        else:
            torch._foreach_copy_(grads, m)
        for p, u, rate in zip(self.params.values(), grads, self.lr_multipliers, strict=True):
            p.sub_(self.orthogonal(u), alpha=lr * rate * self.scale(*p.shape[-2:]))

    def orthogonal(self, u: Float[Tensor, "*experts in out"]) -> Float[Tensor, "*experts in out"]:
        """Returns u with singular values of about 1."""
        a, b, c = self.coefficients
        tall = u.shape[-2] > u.shape[-1]
        x = u.mT if tall else u  # the product below is of the shorter side
        x = x / (torch.linalg.matrix_norm(x, keepdim=True) + self.eps)
        for _ in range(self.steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        return x.mT if tall else x
