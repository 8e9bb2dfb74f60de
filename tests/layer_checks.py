"""What the layers of either twin must do. Each check takes the layer as a function of NumPy arrays."""

import numpy as np
import oracles

from slm_core import hashing
from slm_core.config import Attention, Mlp, Model, Norm, Position
from slm_core.pattern import resolve

TOLERANCE = dict(rtol=1e-12, atol=1e-13)
KERNEL_CASES = [
    dict(kv_heads=kv_heads, start=start, window=window, softcap=softcap)
    for kv_heads in (1, 2, 4)
    for start, window, softcap in ((0, 0, 0.0), (0, 3, 0.0), (0, 0, 2.0), (3, 0, 0.0), (3, 2, 2.0))
]
"""Keys are start + time: as with a cache."""


def model(**sections) -> Model:
    """Returns a resolved model, 8 wide, of given sections."""
    return resolve(Model(d_model=8, **{"attention": Attention(n_heads=2)} | sections))


def check_kernel(kernel, kv_heads, start, window, softcap):
    """kernel(q, k, v, start=, scale=, window=, softcap=)."""
    rng = np.random.default_rng(0)
    time, width = 6, 5
    q = rng.standard_normal((2, time, 4, width))
    k, v = rng.standard_normal((2, 2, start + time, kv_heads, width))
    options = dict(start=start, scale=0.7, window=window, softcap=softcap)
    np.testing.assert_allclose(kernel(q, k, v, **options), oracles.attention(q, k, v, **options), **TOLERANCE)


def check_unwritten_cache_is_hidden(kernel):
    """Keys after the last query change nothing, however large."""
    rng = np.random.default_rng(0)
    q, (k, v) = rng.standard_normal((1, 2, 4, 5)), rng.standard_normal((2, 1, 6, 2, 5))
    options = dict(start=2, scale=0.7, window=0, softcap=0.0)
    sound = kernel(q, k, v, **options)
    k[:, 4:], v[:, 4:] = 1e6, 1e6
    np.testing.assert_array_equal(kernel(q, k, v, **options), sound)


def check_rope(apply):
    """apply(model, context, x, start)."""
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 8))
    for fraction, theta, factor in ((1.0, 1e4, 1.0), (0.5, 100.0, 1.0), (0.25, 1e4, 4.0)):
        scaling = {} if factor == 1 else dict(scaling="linear", scaling_factor=factor)
        position = Position(theta=theta, fraction=fraction, **scaling)
        wide = model(attention=Attention(n_heads=2, head_dim=8), position=position)
        expected = oracles.rope(x, 4, theta=theta, fraction=fraction, factor=factor)
        np.testing.assert_allclose(apply(wide, 9, x, 4), expected, **TOLERANCE)


def check_sinusoidal(apply):
    """apply(model, context, x, start)."""
    x = np.random.default_rng(0).standard_normal((2, 3, 8))
    table = oracles.sinusoidal(9, 8, 100.0)
    found = apply(model(position=Position(kind="sinusoidal", theta=100.0)), 9, x, 4)
    np.testing.assert_allclose(found, x + table[4:7], **TOLERANCE)


def check_learned(apply):
    """apply(model, context, weights, x, start) with weights {name: array}."""
    rng = np.random.default_rng(0)
    x, table = rng.standard_normal((2, 3, 8)), rng.standard_normal((9, 8))
    found = apply(model(position=Position(kind="learned")), 9, {"weight": table}, x, 4)
    np.testing.assert_allclose(found, x + table[4:7], **TOLERANCE)


def check_layernorm(apply):
    """apply(width, norm, weights, x); a mean far from 0 shows a variance taken in one pass."""
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((4, 8)) + 1e4, rng.standard_normal(8), rng.standard_normal(8)
    found = apply(8, Norm(kind="layernorm", eps=0.1, bias=True), {"weight": weight, "bias": bias}, x)
    np.testing.assert_allclose(found, oracles.layernorm(x, weight, bias, 0.1), rtol=1e-9, atol=1e-9)


def check_rmsnorm(apply):
    """apply(width, norm, weights, x)."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 8)), rng.standard_normal(8)
    found = apply(8, Norm(kind="rmsnorm", eps=0.1), {"weight": weight}, x)
    np.testing.assert_allclose(found, oracles.rmsnorm(x, weight, 0.1), **TOLERANCE)


def check_gelu(apply):
    """apply(model, weights, x)."""
    rng = np.random.default_rng(0)
    x, up, down, b, c = (rng.standard_normal(s) for s in ((1, 3, 8), (8, 12), (12, 8), (12,), (8,)))
    weights = {"up_proj.weight": up, "up_proj.bias": b, "down_proj.weight": down, "down_proj.bias": c}
    for kind in ("erf", "tanh"):
        found = apply(model(mlp=Mlp(kind="gelu", gelu=kind, hidden=12, bias=True)), weights, x)
        np.testing.assert_allclose(found, oracles.gelu(x @ up + b, kind) @ down + c, **TOLERANCE)


def check_swiglu(apply):
    """apply(model, weights, x)."""
    rng = np.random.default_rng(0)
    x, gate, up, down = (rng.standard_normal(s) for s in ((1, 3, 8), (8, 12), (8, 12), (12, 8)))
    weights = {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": down}
    found = apply(model(mlp=Mlp(kind="swiglu", hidden=12)), weights, x)
    np.testing.assert_allclose(found, oracles.silu(x @ gate) * (x @ up) @ down, **TOLERANCE)


def check_keep_mask(keep_mask):
    """keep_mask(key, shape, first_row, rate)."""
    keys = hashing.site_keys(seed=7, step=3, n_layers=2)
    for key, rate in zip(keys.tolist(), (0.1, 0.5, 0.9, 0.0, 0.999), strict=True):
        for first_row, shape in ((0, (2, 3, 5)), (6, (2, 3, 5)), (400_000_000, (1, 3, 5))):
            expected = hashing.keep_mask(key, shape, first_row, rate)
            np.testing.assert_array_equal(keep_mask(key, shape, first_row, rate), expected)


def check_token_losses(token_losses):
    """token_losses(logits, targets)."""
    rng = np.random.default_rng(0)
    logits, targets = 30 * rng.standard_normal((5, 7)), np.array([0, 6, -1, 3, -1])
    np.testing.assert_allclose(token_losses(logits, targets), oracles.token_losses(logits, targets), **TOLERANCE)
