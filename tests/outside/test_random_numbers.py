"""Random numbers of `slm_core`, which both twins share: their distribution and independence, by tests of SciPy.

A comparison of the twins cannot see these mistakes. Each test has one outcome, as the seeds are fixed. A sound
generator would fail one of them with a probability below 1e-4.
"""

import itertools
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from slm_core.inference.sampling import uniforms
from slm_core.model.dropout import keep_mask, site_keys
from slm_core.model.initialization import Spec, initial_value

RARE = 1e-5
SHAPE = (4, 64, 64)
"""Rows, tokens and features of a mask."""


def related(a: np.ndarray, b: np.ndarray) -> bool:
    """Tells whether two arrays of numbers are correlated."""
    return stats.pearsonr(a.ravel().astype(float), b.ravel().astype(float)).pvalue < RARE


def mask(seed: int = 0, step: int = 0, site: int = 0, first_row: int = 0, rate: float = 0.3) -> np.ndarray:
    return keep_mask(int(site_keys(seed, step, 6)[site]), SHAPE, first_row, rate)


def lowbias32(x: np.ndarray) -> np.ndarray:
    """Wellons's hash of 32 bits, in arithmetic of 32 bits."""
    x = x ^ (x >> 16)
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def hashes(seed: int, step: int, site: int, first: int, count: int) -> np.ndarray:
    """The hash of each element, by section 6 of docs/numerics.md."""
    key, golden = lowbias32(np.uint32([seed])), np.uint32(0x9E3779B9)
    for value in (step, site):
        key = lowbias32(key ^ lowbias32(np.uint32([value]) + golden))
    return lowbias32(lowbias32(np.arange(first, first + count, dtype=np.uint32)) ^ key)


def test_dropout_is_the_hash_of_the_specification():
    expected = hashes(7, 3, 4, 2 * 5 * 6, 4 * 5 * 6)
    key = int(site_keys(7, 3, 4)[4])
    for rate in (0.1, 0.5, expected[11] / 2**32):  # at the last one, an element stands on the threshold and is kept
        kept = keep_mask(key, (4, 5, 6), 2, float(rate)).ravel()
        np.testing.assert_array_equal(kept, expected >= round(float(rate) * 2**32))


def test_every_seed_step_and_site_has_its_own_dropout_key():
    keys = [site_keys(seed, step, 12) for seed in range(4) for step in range(200)]
    every = np.concatenate(keys)
    assert every.size == 4 * 200 * 25 and len(np.unique(every)) == every.size


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share(rate):
    kept = [mask(step=step, rate=rate) for step in range(8)]
    assert stats.binomtest(int(np.sum(kept)), np.size(kept), 1 - rate).pvalue > RARE
    for axis in range(3):  # the share is the same in every row, at every token and in every feature
        others = tuple(i for i in range(4) if i != axis + 1)
        counts = np.sum(kept, axis=others)
        expected = np.full(counts.shape, counts.sum() / counts.size)
        assert stats.chisquare(counts, expected).pvalue > RARE


def test_masks_of_other_seeds_steps_sites_and_rows_are_independent():
    masks = [
        mask(),
        *(mask(seed=i) for i in (1, 2)),
        *(mask(step=i) for i in (1, 2, 3)),
        *(mask(site=i) for i in (1, 2)),
    ]
    masks.append(mask(first_row=SHAPE[0]))
    assert not any(related(a, b) for a, b in itertools.combinations(masks, 2))


def test_neighbours_of_a_mask_are_independent():
    one = mask()
    for axis, lag in itertools.product(range(3), (1, 2, 3)):
        length = SHAPE[axis]
        assert not related(one.take(range(lag, length), axis), one.take(range(length - lag), axis))


def test_initial_values_are_normal_and_independent():
    spec = Spec("matrix", std=0.02)
    values = [
        initial_value(name, (200, 200), spec, seed)
        for name in ("layers.0.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight", "embed.weight")
        for seed in (0, 1)
    ]
    for value in values:
        assert stats.kstest(value.ravel() / 0.02, "norm").pvalue > RARE
    assert not any(related(a, b) for a, b in itertools.combinations(values, 2))


def test_numbers_of_sampling_are_uniform_and_independent():
    first, second = (np.array(list(islice(uniforms(seed), 20_000))) for seed in (0, 1))
    for numbers in (first, second):
        assert stats.kstest(numbers, "uniform").pvalue > RARE
        assert not related(numbers[1:], numbers[:-1])
    assert not related(first, second)
