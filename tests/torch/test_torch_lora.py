"""Adapters and matrices in few bits in the PyTorch twin."""

from types import SimpleNamespace

import lora_checks as checks
import pytest
import torch

from slm_core.quantization import formats
from slm_torch import params
from slm_torch.evaluator import Evaluator
from slm_torch.layers.linear import Linear
from slm_torch.layers.lora import FrozenLinear
from slm_torch.numerics import DTYPES
from slm_torch.quantization.formats import MATRIX, TABLES, product
from slm_torch.trainer import build


def tensors(stored_as, parts):
    return {leaf: torch.from_numpy(part) for leaf, part in (parts | TABLES[stored_as]).items()}


def matrix(stored_as, parts):
    return MATRIX[stored_as](**tensors(stored_as, parts)).numpy()


def product_and_gradient(x, stored_as, parts, cotangent):
    x = torch.from_numpy(x).requires_grad_()
    y = product(x, stored_as, list(tensors(stored_as, parts).values()))
    y.backward(torch.from_numpy(cotangent))
    return y.detach().numpy(), x.grad.numpy()


def adapted(x, weights, alpha, dtype):
    x = torch.from_numpy(x).to(DTYPES[dtype]).requires_grad_()
    layer = FrozenLinear(Linear(*weights["weight"].shape, checks.MATRIX, bias=False), "float", x.shape[-1], alpha)
    y = params.fill(layer, weights.items(), torch.float32, torch.device("cpu"))(x)
    y.sum().backward()
    return y.detach().float().numpy(), x.grad.float().numpy()


TWIN = SimpleNamespace(matrix=matrix, product=product_and_gradient, adapted=adapted, build=build, Evaluator=Evaluator)


@pytest.mark.parametrize("stored_as", formats.FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", checks.SHAPES)
def test_the_same_bits_as_numpy(stored_as, dtype, shape):
    checks.check_the_same_bits(TWIN, stored_as, dtype, shape)


@pytest.mark.parametrize("stored_as", formats.FORMATS)
def test_product(stored_as):
    checks.check_product(TWIN, stored_as)


@pytest.mark.parametrize("stored_as", checks.STORED_AS)
def test_only_adapters_move(stored_as):
    checks.check_only_adapters_move(TWIN, stored_as)


@pytest.mark.parametrize("stored_as", checks.STORED_AS)
def test_a_base_and_the_merge(stored_as):
    checks.check_a_base_and_the_merge(TWIN, stored_as)


@pytest.mark.parametrize("dtype", checks.SCALED)
def test_an_adapter_is_scaled_by_the_exact_number(dtype):
    checks.check_scaling(TWIN, dtype)


def test_facts():
    checks.check_facts(TWIN)


@pytest.mark.parametrize("stored_as", formats.FORMATS)
def test_a_product_brings_nothing_from_the_host(stored_as, monkeypatch):
    layer = FrozenLinear(Linear(8, 6, checks.MATRIX, bias=False), stored_as, 0, 1.0)
    params.initialise(torch.nn.ModuleDict({"layer": layer}), 0, torch.float32, torch.device("cpu"))
    assert (
        dict(layer.named_buffers()).keys() == TABLES[stored_as].keys()
        and not layer.state_dict().keys() & TABLES[stored_as]
    )
    monkeypatch.setattr(torch, "from_numpy", None)
    layer(torch.ones(3, 8, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("stored_as", formats.FORMATS)
def test_nothing_floating_is_kept_for_the_backward_pass(stored_as):
    parts = tensors(stored_as, formats.FORMATS[stored_as].quantise(checks.numbers((64, 64), "float32")))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        product(torch.ones(3, 64, requires_grad=True), stored_as, list(parts.values()))
    assert [tensor.data_ptr() for tensor in kept] == [part.data_ptr() for part in parts.values()]
