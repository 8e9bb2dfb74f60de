"""The Flax attention kernels against the formula, in float64, forward and backward."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import kernel_checks as checks
import numpy as np
import pytest

from slm_flax.layers import KERNEL

FLASH = sys.modules["slm_flax.layers.flash"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    jax.config.update("jax_enable_x64", True)
    monkeypatch.setattr(FLASH, "TILE", checks.TILE)


def runner(name, transform=lambda kernel: kernel, compiled=False):
    """Without compilation, which costs a second a case: loops run as Python's."""

    def run(inputs, dy, **options):
        static = {n: options.pop(n) for n in ("scale", "window", "softcap") if n in options}
        kernel = transform(partial(KERNEL[name], **static))

        def forward_backward(inputs, dy, places):
            y, backward = jax.vjp(lambda inputs: kernel(**inputs, **places), inputs)
            return y, backward(dy)[0]

        inputs, dy = jax.tree.map(jnp.asarray, (inputs, dy))
        if compiled:
            y, gradients = jax.jit(forward_backward)(inputs, dy, options)  # with positions that it does not know
        else:
            with jax.disable_jit():
                y, gradients = forward_backward(inputs, dy, options)
        return np.asarray(y), {n: np.asarray(g) for n, g in gradients.items()}

    return run


@pytest.mark.parametrize("case", [case for case in checks.CASES if case["kv_heads"] == 2], ids=str)
def test_flash(case):
    checks.check_case(runner("flash"), **case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in checks.CASES if case["kv_heads"] != 2], ids=str)
def test_flash_with_one_or_all_kv_heads(case):
    checks.check_case(runner("flash"), **case)


@pytest.mark.parametrize("case", checks.FEW_CASES, ids=str)
@pytest.mark.parametrize("name", [name for name in KERNEL if name != "flash"])
def test_kernel(name, case):
    checks.check_case(runner(name), **case)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("name", ["dot_product", "flash"])
def test_rows_that_see_nothing(name, sinks):
    checks.check_rows_that_see_nothing(runner(name), sinks)


def test_one_query():
    checks.check_one_query(runner("flash", compiled=True), start=5)


def test_half_precision():
    checks.check_half(runner("flash", compiled=True))


def test_bfloat16():
    inputs, _ = checks.problem(keys=checks.TIME)
    narrow, single = ({n: jnp.asarray(x, d) for n, x in inputs.items()} for d in (jnp.bfloat16, jnp.float32))
    kernel = jax.jit(lambda inputs: KERNEL["flash"](**inputs, start=0, scale=0.7))
    y, expected = kernel(narrow), kernel(single)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(y), expected, rtol=5e-2, atol=5e-2)


def test_hidden_tiles_are_left_out():
    checks.check_hidden_tiles_are_left_out(runner("flash", compiled=True))


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_compiled(kv_heads):
    run = runner("flash", compiled=True)
    checks.check_case(run, "rolling cache, not full", kv_heads, window=3, softcap=2.0, bias=True, sinks=True)


def test_checkpointed():
    run = runner("flash", lambda kernel: jax.checkpoint(lambda **x: kernel(**x)), compiled=True)
    inputs, dy = checks.problem(keys=checks.TIME, bias=True, sinks=True)
    checks.check(run, inputs, dy, start=0, window=3)


def test_constant_bias_costs_no_gradient(monkeypatch):
    def never(*_):
        raise AssertionError("the gradient of a bias that needs none")

    monkeypatch.setattr(FLASH.Tiles, "add_diagonals", never)
    inputs, _ = checks.problem(keys=checks.TIME, bias=True)
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
    found = {}
    for time in (512, 1024):
        inputs, dy = checks.problem(keys=time, time=time, batch=1)

        def forward_backward(inputs, dy):
            y, backward = jax.vjp(lambda inputs: KERNEL["flash"](**inputs, start=0, scale=0.7), inputs)
            return y, backward(dy)

        compiled = jax.jit(forward_backward).lower(inputs, dy).compile()
        found[time] = compiled.memory_analysis().temp_size_in_bytes
    assert found[1024] <= 2.1 * found[512]
