"""The Flax mixture of experts against loops over tokens and experts."""

from functools import partial

import jax
import jax.numpy as jnp
import moe_checks as checks
import numpy as np
import pytest

from slm_flax import params
from slm_flax.layers.moe import SMALLEST_BLOCK, MixtureOfExperts, rows_by_expert
from slm_flax.numerics import DTYPES


@pytest.fixture(autouse=True)
def wide():
    jax.config.update("jax_enable_x64", True)


@partial(jax.jit, static_argnums=0)
def gradients(model, weights, x, dy):
    stored = weights["router.weight"].dtype

    def objective(weights, x):
        layer = params.bind(MixtureOfExperts(model), weights)
        y, auxiliary_loss = layer(x)
        assert y.dtype == x.dtype and auxiliary_loss.dtype == stored
        return (y * dy).sum().astype(stored) + auxiliary_loss, (y, auxiliary_loss)

    (_, (y, auxiliary_loss)), (dw, dx) = jax.value_and_grad(objective, (0, 1), has_aux=True)(weights, x)
    return y, auxiliary_loss, dw | {"x": dx}


def run(model, weights, x, dy, dtype="float64"):
    assert weights.keys() == params.specs(MixtureOfExperts(model)).keys()
    stored = jnp.dtype("float64" if dtype == "float64" else "float32")
    weights = {name: jnp.asarray(value, stored) for name, value in weights.items()}
    found = gradients(model, weights, jnp.asarray(x, DTYPES[dtype]), jnp.asarray(dy, DTYPES[dtype]))
    return jax.tree.map(lambda array: np.asarray(array, np.float64), found)


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


@pytest.mark.parametrize(("pairs", "experts"), [(1, 8), (2, 8), (40, 1), (300, 8), (2000, 3), (4096, 8), (500, 300)])
def test_blocks_hold_every_pair_of_their_expert(pairs, experts):
    rng = np.random.default_rng(0)
    skewed = np.minimum(rng.geometric(0.5, pairs) - 1, experts - 1)
    for chosen in (np.zeros(pairs, int), np.full(pairs, experts - 1), rng.integers(0, experts, pairs), skewed):
        pair, row, expert = (np.asarray(array) for array in rows_by_expert(jnp.asarray(chosen), experts))
        np.testing.assert_array_equal(pair[row], np.arange(pairs))
        assert (pair == pairs).sum() == len(pair) - pairs
        np.testing.assert_array_equal(expert[row // (len(pair) // len(expert))], chosen)
        assert len(pair) <= 1.25 * pairs + SMALLEST_BLOCK * min(pairs, experts)
