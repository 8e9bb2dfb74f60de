"""Muon: orthogonalised momentum."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from slm_core.config import Optim
from slm_flax.optim.adamw import scale_by_adam
from slm_flax.optim.base import Groups, Transformation, by_group, stateful

SCALES = {
    "rms": lambda d_in, d_out: 0.2 * max(d_in, d_out) ** 0.5,
    "spectral": lambda d_in, d_out: max(1.0, d_out / d_in) ** 0.5,
}
"""{optim.muon_scale: factor of an orthogonalised update, as a function of the sides of its matrix}."""

COEFFICIENTS, EPS = (3.4445, -4.7750, 2.0315), 1e-7


def muon(optim: Optim, groups: Groups) -> Transformation:
    """Makes Muon: orthogonalised momentum for matrices, and AdamW for every other parameter.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. Both have the same learning rate.

    m <- mu m + (1 - mu) g;  u = mu m + (1 - mu) g (nesterov) or m;  o = orthogonal(u), close to U V^T of u = U S V^T
    p <- p (1 - lr decay);  p <- p - lr lr_multiplier scale o

    scale: 0.2 sqrt(max(in, out)) (Liu et al. 2025, https://arxiv.org/abs/2502.16982) or sqrt(max(1, out / in)). Experts
    [expert, in, out] are matrices one by one.

    `optax.contrib.muon` corrects the momentum's bias, and its Nesterov form looks one update ahead.

    State: "m/NAME" of a matrix, of its shape; AdamW's of every other parameter; "count".
    """
    kinds: dict[Hashable, Transformation] = {
        "matrix": scale_by_muon(optim),
        "rest": scale_by_adam(optim),
    }

    def kind(name: str, value: Array) -> str:
        return "matrix" if groups[name].role == "matrix" and value.ndim >= 2 else "rest"

    split = optax.partition(kinds, lambda params: {name: kind(name, value) for name, value in params.items()})
    return optax.chain(split, by_group(groups))


class Momentum(NamedTuple):
    """The average of the gradients so far."""

    m: Any


def scale_by_muon(optim: Optim) -> optax.GradientTransformationExtraArgs:
    """Turns gradients into their orthogonalised momentum, times the scale of the matrix's shape."""
    mu, scale = optim.momentum, SCALES[optim.muon_scale]

    def direction(g: Array, m: Array) -> Array:
        u = g + mu * (m - g) if optim.nesterov else m
        return scale(*u.shape[-2:]) * orthogonal(u, optim.newton_schulz_steps)

    def update(grads: Any, state: Momentum, params: Any, lr: Array) -> tuple[Any, Momentum]:
        m = jax.tree.map(lambda g, m: m + (1 - mu) * (g - m), grads, state.m)
        return jax.tree.map(direction, grads, m), Momentum(m)

    return stateful(lambda params: Momentum(optax.tree.zeros_like(params)), update)


def orthogonal(u: Float[Array, "*experts in out"], steps: int) -> Float[Array, "*experts in out"]:
    """Brings the singular values of u to about 1 (0.7 to 1.2), by Newton and Schulz's iteration.

    x = u / (|u| + 1e-7) in the Frobenius norm, then `steps` times x <- a x + (b x x^T + c (x x^T)^2) x,
    (a, b, c) = (3.4445, -4.7750, 2.0315).
    """
    a, b, c = COEFFICIENTS
    tall = u.shape[-2] > u.shape[-1]
    x = u.mT if tall else u  # the product below is of the shorter side
    x = x / (jnp.linalg.matrix_norm(x, keepdims=True) + EPS)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
