"""The variance that pairing leaves: data whose ratio is known, and the coverage of its interval."""

import numpy as np
import pytest

from slm_core.studies.calibration.pairing import variance_ratios, variances
from tests.core.studies.made_up import assert_rate, study


@pytest.mark.parametrize(
    ("ours", "theirs", "paired", "unpaired"),
    [
        ([1.5, 2.5, 3.5], [1.0, 2.0, 3.0], 0.0, 2.0),  # they move together: nothing is left
        ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], 4.0, 2.0),  # they move apart: pairing doubles the variance
        ([1.0, -2.0, 1.0], [1.0, 0.0, -1.0], 4.0, 4.0),  # they are uncorrelated: pairing changes nothing
    ],
)
def test_the_variances_of_made_up_losses(ours, theirs, paired, unpaired):
    made = variances(np.array(ours), np.array(theirs))
    assert made[:2] == pytest.approx((paired, unpaired))


def test_the_interval_holds_the_true_ratio_in_95_percent_of_studies():
    # Losses with the correlation r and equal variances have the ratio 1 - r.
    rng, studies, r = np.random.default_rng(0), 2000, 0.9
    held = 0
    for _ in range(studies):
        ours, theirs = rng.multivariate_normal([0, 0.1], [[1, r], [r, 1]], size=5).T
        _, _, low, high = variances(ours, theirs)
        held += low <= 1 - r <= high
    assert_rate(held, studies, 0.95)


def test_the_interval_is_around_the_ratio_and_shrinks_with_the_seeds():
    rng = np.random.default_rng(1)
    widths = []
    for n in (4, 16, 64):
        shared, ours, theirs = rng.normal(size=(3, n))
        paired, unpaired, low, high = variances(shared + 0.3 * ours, shared + 0.3 * theirs)
        assert 0 < low < paired / unpaired < high < 2
        widths.append(high / low)
    assert widths == sorted(widths, reverse=True)


def test_each_variant_is_paired_with_the_baseline_on_the_seeds_that_both_finished():
    losses = {"a": [1.0, 2.0, 4.0, 9.0], "b": [1.0, 2.5, 4.0, None], "c": [None, None, None, 1.0]}
    (made,) = variance_ratios(study({name: {"torch": values} for name, values in losses.items()}))
    assert (made.variant, made.baseline, made.n) == ("b", "a", 3)
    assert made.paired == pytest.approx(np.var([0, 0.5, 0], ddof=1))
    assert made.unpaired == pytest.approx(np.var([1, 2, 4], ddof=1) + np.var([1, 2.5, 4], ddof=1))
    assert made.ratio == made.paired / made.unpaired


def test_a_seed_counts_once_with_the_mean_of_its_twins():
    twins = study({"a": {"torch": [1.0, 2.0], "flax": [3.0, 4.0]}, "b": {"torch": [1.0, 3.0], "flax": [3.0, 7.0]}})
    (made,) = variance_ratios(twins)
    assert (made.n, made.paired) == (2, pytest.approx(np.var([0.0, 2.0], ddof=1)))
