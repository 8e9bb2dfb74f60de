"""Adapters and matrices in few bits in the PyTorch twin."""

from types import SimpleNamespace

import lora_checks as checks
import pytest
import torch

from slm_core import lowbit
from slm_torch.evaluator import Evaluator
from slm_torch.lowbit import MATRIX, product
from slm_torch.trainer import build


def tensors(parts):
    return {leaf: torch.from_numpy(part) for leaf, part in parts.items()}


def matrix(held, parts):
    return MATRIX[held](**tensors(parts)).numpy()


def product_and_gradient(x, held, parts, cotangent):
    x = torch.from_numpy(x).requires_grad_()
    y = product(x, held, list(tensors(parts).values()))
    y.backward(torch.from_numpy(cotangent))
    return y.detach().numpy(), x.grad.numpy()


TWIN = SimpleNamespace(matrix=matrix, product=product_and_gradient, build=build, Evaluator=Evaluator)


@pytest.mark.parametrize("held", lowbit.FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", checks.SHAPES)
def test_the_same_bits_as_numpy(held, dtype, shape):
    checks.check_the_same_bits(TWIN, held, dtype, shape)


@pytest.mark.parametrize("held", lowbit.FORMATS)
def test_product(held):
    checks.check_product(TWIN, held)


@pytest.mark.parametrize("held", checks.HELD)
def test_only_adapters_move(held):
    checks.check_only_adapters_move(TWIN, held)


@pytest.mark.parametrize("held", checks.HELD)
def test_a_base_and_the_merge(held):
    checks.check_a_base_and_the_merge(TWIN, held)


def test_facts():
    checks.check_facts(TWIN)


@pytest.mark.parametrize("held", lowbit.FORMATS)
def test_nothing_floating_is_kept_for_the_backward_pass(held):
    parts = tensors(lowbit.FORMATS[held].quantise(checks.numbers((64, 64), "float32")))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        product(torch.ones(3, 64, requires_grad=True), held, list(parts.values()))
    assert [tensor.data_ptr() for tensor in kept] == [part.data_ptr() for part in parts.values()]
