"""Attention kernels in PyTorch only: shared keys, gradients that are not needed, memory."""

import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slm_torch.layers import KERNEL
from tests.conformance.kernel_cases import FEW_CASES, TILE, TIME, check_case, problem
from tests.conformance.twins import torch as twin

FLASH, FUSED = (sys.modules[f"slm_torch.layers.{name}"] for name in ("flash", "fused"))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(FLASH, "TILE", TILE)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_keys_are_repeated_for_a_kernel_that_does_not_share_them(case, monkeypatch):
    monkeypatch.setattr(FUSED, "_shares_keys", lambda q, mask: False)
    check_case(twin, "fused", **case)


def test_without_gradients():
    inputs, dy = problem(keys=TIME)
    expected, _ = twin.kernel_gradients("flash", inputs, dy, start=0, scale=0.7)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            y = KERNEL["flash"](**{n: torch.from_numpy(x) for n, x in inputs.items()}, start=0, scale=0.7)
        np.testing.assert_array_equal(y, expected)


def test_constant_bias_costs_no_gradient(monkeypatch):
    def never(*_):
        raise AssertionError("the gradient of a bias that needs none")

    monkeypatch.setattr(FLASH.Tiles, "add_diagonals", never)
    inputs, _ = problem(keys=TIME, bias=True)
    tensors = {name: torch.from_numpy(x).requires_grad_(name != "bias") for name, x in inputs.items()}
    KERNEL["flash"](**tensors, start=0, scale=0.7).sum().backward()
    tensors["bias"].requires_grad_()
    with pytest.raises(AssertionError):
        KERNEL["flash"](**tensors, start=0, scale=0.7).sum().backward()


def test_no_tensor_is_quadratic_in_the_context(monkeypatch):
    monkeypatch.setattr(FLASH, "TILE", 64)

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.elements = max(self.elements, out.untyped_storage().nbytes() // out.element_size())
            return out

    elements = {}
    for time in (256, 512):
        inputs, dy = problem(keys=time, time=time, distances=time, bias=True, sinks=True, batch=1)
        with Largest() as largest:
            twin.kernel_gradients("flash", inputs, dy, start=0, scale=0.7)
        elements[time] = largest.elements
    assert elements[512] <= 2.1 * elements[256]
