"""The PyTorch layers against the papers' formulas, in float64."""

import layer_checks as checks
import numpy as np
import pytest
import torch

from slm_core.params import Spec
from slm_torch import layers, params
from slm_torch.layers.dropout import keep_mask
from slm_torch.loss import token_losses


def kernel(name):
    def run(q, k, v, **options):
        return layers.KERNEL[name](*(torch.from_numpy(x.copy()) for x in (q, k, v)), **options).numpy()

    return run


def filled(module, weights, x, *arguments):
    """Runs a module with weights {name: array} on an array."""
    module = params.initialise(module, 0, torch.float64, torch.device("cpu"))
    params.load(dict(module.named_parameters()), weights)
    return module(torch.from_numpy(x), *arguments).detach().numpy()


def test_specs_are_kept():
    parameter = params.declare((2,), Spec("bias"))
    assert parameter.is_meta and parameter.spec == Spec("bias")


@pytest.mark.parametrize("name", layers.KERNEL)
@pytest.mark.parametrize("case", checks.KERNEL_CASES, ids=str)
def test_kernel(name, case):
    checks.check_kernel(kernel(name), **case)


@pytest.mark.parametrize("name", layers.KERNEL)
def test_kernel_hides_the_unwritten_cache(name):
    checks.check_unwritten_cache_is_hidden(kernel(name))


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
        bits = torch.from_numpy(np.array(key, np.uint32).view(np.int32))
        return keep_mask(bits, torch.Size(shape), first_row, rate).numpy()

    checks.check_keep_mask(run)


def test_token_losses():
    checks.check_token_losses(lambda x, t: token_losses(torch.from_numpy(x), torch.from_numpy(t)).numpy())
