"""Attention kernels in JAX only: unknown positions, gradients that are not needed, memory, JAX's own function."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_flax.layers import KERNEL
from tests.conformance.arrays import TOLERANCE
from tests.conformance.kernel_cases import TILE, TIME, check_case, problem
from tests.conformance.test_kernels import FORWARD_CASES
from tests.conformance.twins import flax as twin
from tests.tiers import some_slow

FLASH = sys.modules["slm_flax.layers.flash"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    twin.prepare()
    monkeypatch.setattr(FLASH, "TILE", TILE)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_compiled_flash_does_not_know_its_positions(kv_heads):
    case = dict(place="rolling cache, not full", window=3, softcap=2.0, bias=True, sinks=True)
    check_case(twin, "flash", kv_heads=kv_heads, **case, compiled=True)


def test_constant_bias_costs_no_gradient(monkeypatch):
    def never(*_):
        raise AssertionError("the gradient of a bias that needs none")

    monkeypatch.setattr(FLASH.Tiles, "add_diagonals", never)
    inputs, _ = problem(keys=TIME, bias=True)
    inputs = jax.tree.map(jnp.asarray, inputs)
    bias = inputs.pop("bias")

    def total(inputs, bias):
        return KERNEL["flash"](**inputs, bias=bias, start=0, scale=0.7).sum()

    for function in (total, jax.checkpoint(total), jax.jit(total)):
        jax.make_jaxpr(jax.grad(function))(inputs, bias)
        with pytest.raises(AssertionError):
            jax.make_jaxpr(jax.grad(function, argnums=1))(inputs, bias)


def test_memory_is_linear_in_the_context(monkeypatch):
    monkeypatch.setattr(FLASH, "TILE", 64)
    temporaries = {}
    for time in (512, 1024):
        inputs, dy = problem(keys=time, time=time, batch=1)

        def forward_backward(inputs, dy):
            y, backward = jax.vjp(lambda inputs: KERNEL["flash"](**inputs, start=0, scale=0.7), inputs)
            return y, backward(dy)

        compiled = jax.jit(forward_backward).lower(inputs, dy).compile()
        temporaries[time] = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries[1024] <= 2.1 * temporaries[512]


@pytest.mark.parametrize("case", [case for case in FORWARD_CASES if not case["softcap"]], ids=str)
def test_fused_is_dot_product_in_float32(case):
    """JAX's own function computes what `fused` does not compute in blocks, but never in float64."""
    rng = np.random.default_rng(0)
    time, keys = 6, case["start"] + 6
    q = jnp.asarray(rng.standard_normal((2, time, 4, 5)), jnp.float32)
    k, v = (jnp.asarray(rng.standard_normal((2, keys, case["kv_heads"], 5)), jnp.float32) for _ in "kv")
    options = dict(start=case["start"], window=case["window"], scale=0.7, softcap=0.0)
    actual, expected = KERNEL["fused"](q, k, v, **options), KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("option", ["bias", "documents"])
def test_fused_with_an_option_is_dot_product_in_float32(monkeypatch, option, start):
    monkeypatch.setattr(sys.modules["slm_flax.layers.fused"], "SMALLEST_BLOCK", 2)
    rng = np.random.default_rng(0)
    time, keys = 6, start + 6
    q, k, v = (jnp.asarray(rng.standard_normal((2, n, 4, 5)), jnp.float32) for n in (time, keys, keys))
    given = {
        "bias": jnp.asarray(rng.standard_normal((4, 4)), jnp.float32),  # fewer distances than keys
        "documents": jnp.asarray(np.cumsum(rng.random((2, keys)) < 0.4, axis=1)),
    }
    options = {"start": start, "scale": 0.7, option: given[option]}
    actual, expected = KERNEL["fused"](q, k, v, **options), KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", some_slow((0, 1, 3, 4, 9), 0, 1, 9))
@pytest.mark.parametrize("time", some_slow((8, 11), 8))
def test_fused_in_blocks_is_dot_product(monkeypatch, time, window):
    """Several blocks of queries, the last one short, with windows shorter and longer than a block."""
    monkeypatch.setattr(sys.modules["slm_flax.layers.fused"], "SMALLEST_BLOCK", 2)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, time, heads, 5))) for heads in (4, 2, 2))
    options = dict(start=0, window=window, scale=0.7, softcap=0.0)
    expected = KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(KERNEL["fused"](q, k, v, **options), expected, **TOLERANCE)
    single = (x.astype(jnp.float32) for x in (q, k, v))
    np.testing.assert_allclose(KERNEL["fused"](*single, **options), expected, rtol=1e-5, atol=1e-5)
