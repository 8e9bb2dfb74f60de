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

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim.adamw import AdamW
from slm_flax.optim.base import Optimizer, OptimState
from slm_flax.params import Params

SCALES = {
    "rms": lambda d_in, d_out: 0.2 * max(d_in, d_out) ** 0.5,
    "spectral": lambda d_in, d_out: max(1.0, d_out / d_in) ** 0.5,
}


class Muon(Optimizer):
    parts = ("m",)

    def __init__(self, optim: Optim, groups: Mapping[str, ParameterGroup]):
        super().__init__(groups)
        self.rest = AdamW(optim, groups)
        self.momentum, self.nesterov = optim.momentum, optim.nesterov
        self.steps, self.scale = optim.newton_schulz_steps, SCALES[optim.muon_scale]
        self.coefficients, self.eps = (3.4445, -4.7750, 2.0315), 1e-7

    def init(self, params: Params) -> OptimState:
        matrices, rest = self.split(params, params)
        return super().init(matrices) | self.rest.init(rest)  # one count for both

    def update(self, grads: Params, state: OptimState, params: Params, lr: Array) -> tuple[Params, OptimState]:
        matrices, rest = self.split(grads, params)
        updated, new = self.rest.update(rest, state, params, lr)
        for name, g in matrices.items():
            m = state[f"m/{name}"]
            m = m + (1 - self.momentum) * (g - m)
            u = g + self.momentum * (m - g) if self.nesterov else m
            updated[name] = self.moved(name, params[name], self.scale(*u.shape[-2:]) * self.orthogonal(u), lr)
            new[f"m/{name}"] = m
        return updated, new

    def split(self, values: Params, params: Params) -> tuple[Params, Params]:
        """Returns the values of the parameters that are orthogonalised, and the rest."""
        matrices = {name for name, p in params.items() if self.groups[name].role == "matrix" and p.ndim >= 2}
        chosen = {name: value for name, value in values.items() if name in matrices}
        return chosen, {name: value for name, value in values.items() if name not in matrices}

    def orthogonal(self, u: Float[Array, "*experts in out"]) -> Float[Array, "*experts in out"]:
        """Returns u with singular values of about 1."""
        a, b, c = self.coefficients
        tall = u.shape[-2] > u.shape[-1]
        x = u.mT if tall else u  # the product below is of the shorter side
        x = x / (jnp.linalg.matrix_norm(x, keepdims=True) + self.eps)
        for _ in range(self.steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        return x.mT if tall else x
