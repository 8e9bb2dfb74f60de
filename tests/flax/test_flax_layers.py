"""The Flax layers against the papers' formulas, in float64."""

import sys

import jax
import jax.numpy as jnp
import layer_checks as checks
import numpy as np
import pytest

from slm_flax import layers, params
from slm_flax.layers.dropout import keep_mask
from slm_flax.loss import token_losses


@pytest.fixture(autouse=True)
def wide():
    jax.config.update("jax_enable_x64", True)


def kernel(name):
    def run(q, k, v, **options):
        return np.asarray(layers.KERNEL[name](*(jnp.asarray(x) for x in (q, k, v)), **options))

    return run


def filled(module, weights, x, *arguments):
    """Runs a module with weights {name: array} on an array."""
    bound = params.bind(module, {name: jnp.asarray(value) for name, value in weights.items()})
    return np.asarray(bound(jnp.asarray(x), *arguments))


@pytest.mark.parametrize("name", layers.KERNEL)
@pytest.mark.parametrize("case", checks.KERNEL_CASES, ids=str)
def test_kernel(name, case):
    checks.check_kernel(kernel(name), **case)


@pytest.mark.parametrize("name", layers.KERNEL)
def test_kernel_hides_the_unwritten_cache(name):
    checks.check_unwritten_cache_is_hidden(kernel(name))


@pytest.mark.parametrize("case", [case for case in checks.KERNEL_CASES if not case["softcap"]], ids=str)
def test_fused_is_dot_product_in_float32(case):
    """Where JAX's own function computes what `fused` does not in blocks; float64 never gets there."""
    rng = np.random.default_rng(0)
    time, keys = 6, case["start"] + 6
    q = jnp.asarray(rng.standard_normal((2, time, 4, 5)), jnp.float32)
    k, v = (jnp.asarray(rng.standard_normal((2, keys, case["kv_heads"], 5)), jnp.float32) for _ in "kv")
    options = dict(start=case["start"], window=case["window"], scale=0.7, softcap=0.0)
    found, expected = layers.KERNEL["fused"](q, k, v, **options), layers.KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("time", [8, 11])
def test_fused_in_blocks_is_dot_product(monkeypatch, time, window):
    """Several blocks of queries, the last one short, with windows shorter and longer than a block."""
    monkeypatch.setattr(sys.modules["slm_flax.layers.fused"], "SMALLEST_BLOCK", 2)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, time, heads, 5))) for heads in (4, 2, 2))
    options = dict(start=0, window=window, scale=0.7, softcap=0.0)
    expected = layers.KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(layers.KERNEL["fused"](q, k, v, **options), expected, **checks.TOLERANCE)
    single = (x.astype(jnp.float32) for x in (q, k, v))
    np.testing.assert_allclose(layers.KERNEL["fused"](*single, **options), expected, rtol=1e-5, atol=1e-5)


def test_rope():
    checks.check_rope(lambda model, context, x, start: filled(layers.POSITION["rope"](model, context), {}, x, start))


def test_sinusoidal():
    kind = layers.POSITION["sinusoidal"]
    checks.check_sinusoidal(lambda model, context, x, start: filled(kind(model, context), {}, x, start))


def test_learned():
    kind = layers.POSITION["learned"]
    checks.check_learned(lambda model, context, weights, x, start: filled(kind(model, context), weights, x, start))


def test_layernorm():
    checks.check_layernorm(lambda width, norm, weights, x: filled(layers.NORM["layernorm"](width, norm), weights, x))


def test_rmsnorm():
    checks.check_rmsnorm(lambda width, norm, weights, x: filled(layers.NORM["rmsnorm"](width, norm), weights, x))


def test_gelu():
    checks.check_gelu(lambda model, weights, x: filled(layers.MLP["gelu"](model), weights, x))


def test_swiglu():
    checks.check_swiglu(lambda model, weights, x: filled(layers.MLP["swiglu"](model), weights, x))


def test_dropout_keeps_what_the_hash_keeps():
    def run(key, shape, first_row, rate):
        return np.asarray(keep_mask(jnp.uint32(key), shape, jnp.uint32(first_row), rate))

    checks.check_keep_mask(run)


def test_token_losses():
    checks.check_token_losses(lambda x, t: np.asarray(token_losses(jnp.asarray(x), jnp.asarray(t))))
