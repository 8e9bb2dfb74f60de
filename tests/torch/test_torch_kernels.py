"""The PyTorch attention kernels against the formula, in float64, forward and backward."""

import sys

import kernel_checks as checks
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from slm_torch.layers import KERNEL

FLASH, FUSED = (sys.modules[f"slm_torch.layers.{name}"] for name in ("flash", "fused"))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(FLASH, "TILE", checks.TILE)


def runner(name, call=lambda kernel, inputs, options: kernel(**inputs, **options)):
    def run(inputs, dy, **options):
        tensors = {n: torch.from_numpy(x.copy()).requires_grad_() for n, x in inputs.items()}
        y = call(KERNEL[name], tensors, options)
        gradients = torch.autograd.grad(y, tensors.values(), torch.from_numpy(dy.copy()))
        return y.detach().numpy(), {n: g.numpy() for n, g in zip(tensors, gradients, strict=True)}

    return run


@pytest.mark.parametrize("case", checks.CASES, ids=str)
@pytest.mark.parametrize("name", KERNEL)
def test_kernel(name, case):
    checks.check_case(runner(name), **case)


@pytest.mark.parametrize("case", checks.FEW_CASES, ids=str)
def test_keys_are_repeated_for_a_kernel_that_does_not_share_them(case, monkeypatch):
    monkeypatch.setattr(FUSED, "_shares_keys", lambda q, mask: False)
    checks.check_case(runner("fused"), **case)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("name", ["dot_product", "flash"])
def test_rows_that_see_nothing(name, sinks):
    checks.check_rows_that_see_nothing(runner(name), sinks)


@pytest.mark.parametrize("start", [0, 5, 17])
@pytest.mark.parametrize("name", KERNEL)
def test_one_query(name, start):
    checks.check_one_query(runner(name), start)


@pytest.mark.parametrize("name", KERNEL)
def test_half_precision(name):
    checks.check_half(runner(name))


def test_bfloat16():
    inputs, _ = checks.problem(keys=checks.TIME)
    narrow, single = (
        {n: torch.from_numpy(x).to(d) for n, x in inputs.items()} for d in (torch.bfloat16, torch.float32)
    )
    y, expected = (KERNEL["flash"](**x, start=0, scale=0.7) for x in (narrow, single))
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(y.float(), expected, rtol=5e-2, atol=5e-2)


def test_hidden_tiles_are_left_out():
    checks.check_hidden_tiles_are_left_out(runner("flash"))


def test_checkpointed():
    def call(kernel, inputs, options):
        return checkpoint(
            lambda *x: kernel(*x[:3], bias=x[3], sinks=x[4], **options), *inputs.values(), use_reentrant=False
        )

    inputs, dy = checks.problem(keys=checks.TIME, bias=True, sinks=True)
    checks.check(runner("flash", call), inputs, dy, start=0, window=3, softcap=2.0)


def test_without_gradients():
    inputs, dy = checks.problem(keys=checks.TIME)
    expected, _ = runner("flash")(inputs, dy, start=0, scale=0.7)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            y = KERNEL["flash"](**{n: torch.from_numpy(x) for n, x in inputs.items()}, start=0, scale=0.7)
        np.testing.assert_array_equal(y, expected)


def test_constant_bias_costs_no_gradient(monkeypatch):
    def never(*_):
        raise AssertionError("the gradient of a bias that needs none")

    monkeypatch.setattr(FLASH.Tiles, "add_diagonals", never)
    inputs, dy = checks.problem(keys=checks.TIME, bias=True)
    bias = torch.from_numpy(inputs.pop("bias"))
    runner("flash", lambda kernel, x, options: kernel(**x, bias=bias, **options))(inputs, dy, start=0, scale=0.7)
    with pytest.raises(AssertionError):
        runner("flash")({**inputs, "bias": bias.numpy()}, dy, start=0, scale=0.7)


def test_no_tensor_is_quadratic_in_the_context(monkeypatch):
    monkeypatch.setattr(FLASH, "TILE", 64)

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.elements = max(self.elements, out.untyped_storage().nbytes() // out.element_size())
            return out

    found = {}
    for time in (256, 512):
        inputs, dy = checks.problem(keys=time, time=time, distances=time, bias=True, sinks=True, batch=1)
        with Largest() as largest:
            runner("flash")(inputs, dy, start=0, scale=0.7)
        found[time] = largest.elements
    assert found[512] <= 2.1 * found[256]
