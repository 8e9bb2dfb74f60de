"""Adapters and matrices in few bits in the Flax twin."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import lora_checks as checks
import numpy as np
import pytest

from slm_core.quantization import formats
from slm_flax import params
from slm_flax.evaluator import Evaluator
from slm_flax.layers.linear import Linear
from slm_flax.layers.lora import FrozenLinear
from slm_flax.numerics import DTYPES
from slm_flax.quantization.formats import MATRIX, product
from slm_flax.trainer import build


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    with jax.enable_x64(True):
        yield


def arrays(parts):
    return {leaf: jnp.asarray(part) for leaf, part in parts.items()}


def matrix(stored_as, parts):
    return np.asarray(jax.jit(MATRIX[stored_as])(**arrays(parts)))


def product_and_gradient(x, stored_as, parts, cotangent):
    parts = list(arrays(parts).values())

    @jax.jit
    def both(x, cotangent):
        y, backward = jax.vjp(lambda x: product(x, stored_as, parts), x)
        return y, *backward(cotangent)

    y, gradient = both(x, cotangent)
    return np.asarray(y), np.asarray(gradient)


def adapted(x, weights, alpha, dtype):
    x = jnp.asarray(x, DTYPES[dtype])
    layer = FrozenLinear(Linear(*weights["weight"].shape, checks.MATRIX, bias=False), "float", x.shape[-1], alpha)
    layer = params.bind(layer, params.fill(layer, weights.items(), np.dtype("float32")))
    y, backward = jax.vjp(jax.jit(lambda x: layer(x)), x)
    return [np.asarray(found, np.float32) for found in (y, *backward(jnp.ones_like(y)))]


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
