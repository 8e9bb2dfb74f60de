"""How often a planted difference is found, in a pool of normal losses, whose truth is known."""

import numpy as np
import pytest

from slm_core.studies.calibration.planted import measure
from slm_core.studies.statistics import ALPHA
from tests.core.studies.made_up import study


@pytest.fixture(scope="module")
def pool():
    return study({"small": {"torch": list(np.random.default_rng(1).normal(2.9, 0.02, 100))}})


def test_no_planted_difference_is_found_at_the_level_of_the_test(pool):
    row = measure(pool, 4, 0.0, 60, 0.95)
    assert row.power == pytest.approx(ALPHA) and row.difference == 0 and row.expected
    assert row.low <= ALPHA <= row.high


def test_a_planted_difference_is_found_at_the_rate_of_published_power(pool):
    # G*Power 3.1, two dependent means: an effect of 1 needs 10 pairs for a power of 0.8, and has 0.803 then.
    row = measure(pool, 10, 1.0, 60, 0.95)
    assert row.power == pytest.approx(0.803, abs=1e-3) and row.expected
    assert row.difference == pytest.approx(np.sqrt(2) * 0.02, rel=0.2)


def test_losses_that_are_not_what_the_test_assumes_are_noticed():
    # One loss in fifty is far off, so the interval is too wide in some groups and the difference is found less often.
    rng = np.random.default_rng(2)
    losses = rng.normal(2.9, 0.001, 100) + np.where(np.arange(100) % 50 == 0, 1.0, 0.0)
    assert not measure(study({"small": {"torch": list(losses)}}), 5, 1.0, 60, 0.95).expected
