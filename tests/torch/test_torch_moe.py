"""The PyTorch mixture of experts against loops over tokens and experts."""

import moe_checks as checks
import pytest
import torch

from slm_torch import params
from slm_torch.layers.moe import MixtureOfExperts, rows_by_expert
from slm_torch.numerics import DTYPES


def run(model, weights, x, dy, dtype="float64"):
    stored = torch.float64 if dtype == "float64" else torch.float32
    layer = params.initialise(MixtureOfExperts(model), 0, stored, torch.device("cpu"))
    named = dict(layer.named_parameters())
    assert named.keys() == weights.keys()
    params.load(named, weights)
    x = torch.from_numpy(x).to(DTYPES[dtype]).requires_grad_()
    y, auxiliary_loss = layer(x)
    assert y.dtype == x.dtype and auxiliary_loss.dtype == stored
    ((y * torch.from_numpy(dy).to(y.dtype)).sum().to(stored) + auxiliary_loss).backward()
    gradients = {name: p.grad.double().numpy() for name, p in {**named, "x": x}.items()}
    return y.detach().double().numpy(), auxiliary_loss.item(), gradients


@pytest.mark.parametrize("name", checks.CASES)
@pytest.mark.parametrize("check", [checks.check_formula, checks.check_gradients])
def test_case(check, name):
    check(run, name)


@pytest.mark.parametrize("check", checks.PROPERTIES)
def test_property(check):
    check(run)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half(dtype):
    checks.check_half(run, dtype)


def test_rows_are_the_pairs_sorted_by_expert():
    chosen = torch.tensor([2, 0, 2, 3, 0])
    rows = rows_by_expert(chosen, 4)
    assert rows.sizes == [2, 0, 2, 1]
    assert rows.pair.tolist() == [1, 4, 0, 2, 3]
    assert rows.row[rows.pair].tolist() == list(range(5))
