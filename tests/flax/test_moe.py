"""JAX lays out tokens in blocks by their experts."""

import jax.numpy as jnp
import numpy as np
import pytest

from slm_flax.layers.moe import SMALLEST_BLOCK, rows_by_expert
from slm_flax.trainer import balance


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


def test_the_bias_of_an_expert_at_the_mean_load_stays():
    values, loads = {"balance": jnp.ones(3)}, {"balance": jnp.asarray([-2.0, 0.0, 3.0])}
    np.testing.assert_array_equal(balance(values, loads, {"balance": 0.5})["balance"], [1.5, 1.0, 0.5])
