"""Muon: orthogonalised momentum."""

import torch
from jaxtyping import Float
from torch import Tensor

from slm_core.config import Optim
from slm_torch.optim.adamw import AdamW
from slm_torch.optim.base import Groups, Optimizer, Params, decay, grads

SCALES = {
    "rms": lambda d_in, d_out: 0.2 * max(d_in, d_out) ** 0.5,
    "spectral": lambda d_in, d_out: max(1.0, d_out / d_in) ** 0.5,
}
"""{optim.muon_scale: factor of an orthogonalised update, as a function of the sides of its matrix}."""

COEFFICIENTS, EPS = (3.4445, -4.7750, 2.0315), 1e-7


class Muon(Optimizer):
    """Muon: orthogonalised momentum for matrices, and AdamW for every other parameter.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. Both have the same learning rate.

    m <- mu m + (1 - mu) g;  u = mu m + (1 - mu) g (nesterov) or m;  o = orthogonal(u), close to U V^T of u = U S V^T
    p <- p (1 - lr decay);  p <- p - lr lr_multiplier scale o

    scale: 0.2 sqrt(max(in, out)) (Liu et al. 2025, https://arxiv.org/abs/2502.16982) or sqrt(max(1, out / in)). Experts
    [expert, in, out] are matrices one by one.

    `torch.optim.Muon` iterates in bfloat16, and accepts neither [in, out] nor experts.

    State, by canonical name: "m/NAME" of a matrix, of its shape; AdamW's of every other parameter; "count".
    """

    parts = ("m",)

    def __init__(self, optim: Optim, params: Params, groups: Groups):
        matrices = {name: p for name, p in params.items() if groups[name].role == "matrix" and p.ndim >= 2}
        super().__init__(matrices, groups)
        self.rest = AdamW(optim, {name: p for name, p in params.items() if name not in matrices}, groups)
        self.join(self.rest)
        self.momentum, self.nesterov = optim.momentum, optim.nesterov
        self.steps, self.scale = optim.newton_schulz_steps, SCALES[optim.muon_scale]

    def update(self) -> None:
        """Does one update, by the formula of the class."""
        self.rest.step()
        for group in self.updated_groups:
            g, m = grads(group), self.part(group, "m")
            torch._foreach_lerp_(m, g, 1 - self.momentum)
            if self.nesterov:
                torch._foreach_lerp_(g, m, self.momentum)
            decay(group)
            for p, u in zip(group["params"], g if self.nesterov else m, strict=True):
                p.sub_(orthogonal(u, self.steps), alpha=group["lr"] * self.scale(*p.shape[-2:]))


def orthogonal(u: Float[Tensor, "*experts in out"], steps: int) -> Float[Tensor, "*experts in out"]:
    """Brings the singular values of u to about 1 (0.7 to 1.2), by Newton and Schulz's iteration.

    x = u / (|u| + 1e-7) in the Frobenius norm, then `steps` times x <- a x + (b x x^T + c (x x^T)^2) x,
    (a, b, c) = (3.4445, -4.7750, 2.0315).
    """
    a, b, c = COEFFICIENTS
    tall = u.shape[-2] > u.shape[-1]
    x = u.mT if tall else u  # the product below is of the shorter side
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
