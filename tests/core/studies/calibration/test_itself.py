"""A variant against itself: which runs meet, how many wins there are, and what chance does to their share."""

import math

import numpy as np
import pytest

from slm_core.errors import UserError
from slm_core.studies.calibration.itself import (
    Rate,
    _groups,
    against_itself,
    comparisons,
    sd_of_differences,
    simulated_shares,
    wins,
)
from slm_core.studies.comparison import differences
from slm_core.studies.statistics import ALPHA, detection_rate
from tests.core.studies.made_up import assert_rate, study


def pool(seeds: int = 60, frameworks: tuple[str, ...] = ("torch",)):
    losses = np.random.default_rng(0).normal(2.9, 0.02, seeds)
    return study({"small": {framework: list(losses) for framework in frameworks}})


def losses_of(result) -> np.ndarray:
    return np.array([cell.loss for cell in result.cells if cell.framework == "torch"])


def test_the_kth_seeds_of_two_groups_are_a_pair():
    runs = pool()
    losses = losses_of(runs)
    made = differences(against_itself(runs, [3, 1], [7, 4]), "itself, other seeds")
    assert made == {0: losses[7] - losses[3], 1: losses[4] - losses[1]}


def test_a_planted_difference_is_added_to_the_second_group():
    runs = pool(frameworks=("torch", "flax"))
    losses = losses_of(runs)
    for twin in (None, "torch", "flax"):
        made = differences(against_itself(runs, [0], [1], planted=0.5), "itself, other seeds", twin)
        assert made[0] == pytest.approx(losses[1] - losses[0] + 0.5)


def test_comparisons_of_one_shuffle_share_no_run():
    drawn = _groups(20, 3)
    for _ in range(4):  # shuffles, of three comparisons each
        runs = [run for first, second in (next(drawn) for _ in range(3)) for run in (*first, *second)]
        assert len(runs) == len(set(runs)) == 18


def test_every_run_is_used_equally_often_in_the_end():
    drawn = _groups(20, 5)
    used = np.bincount([run for first, second in (next(drawn) for _ in range(10)) for run in (*first, *second)])
    assert list(used) == [5] * 20


def test_each_call_makes_the_same_comparisons_of_its_size():
    runs = pool()
    made = comparisons(runs, 4, 9)
    assert made == comparisons(runs, 4, 9) and len(made) == 9
    assert all((each.pooled.n, each.seeds, each.comparisons) == (4, 4, 1) for each in made)


def test_equal_losses_never_win_and_a_large_difference_always_does():
    assert wins(comparisons(pool(), 5, 20, planted=-1.0)) == Rate(20, 20)
    assert {each.verdict.kind for each in comparisons(pool(), 5, 20, planted=-1.0)} == {"better"}
    assert wins(comparisons(study({"small": {"torch": [2.0] * 20}}), 5, 20)) == Rate(0, 20)


def test_a_pool_is_one_variant_with_enough_seeds():
    with pytest.raises(UserError, match="has 2 variants; it must have one"):
        comparisons(study({"a": {"torch": [1.0] * 9}, "b": {"torch": [1.0] * 9}}), 2, 1)
    with pytest.raises(UserError, match="has 8 seeds with a loss; 10 are needed"):
        comparisons(study({"a": {"torch": [1.0, None, *[1.0] * 7]}}), 5, 1)


def test_the_difference_of_two_runs_has_twice_the_variance_of_one():
    assert sd_of_differences(study({"a": {"torch": [1.0, 2.0, 3.0]}})) == pytest.approx(math.sqrt(2))


def test_the_interval_of_a_rate_is_that_of_clopper_and_pearson():
    # Of n trials without a success, the upper end is 1 - (alpha/2)^(1/n). 7 of 10: any table of exact limits.
    assert Rate(0, 200).interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 200)))
    assert Rate(7, 10).interval == pytest.approx((0.3475, 0.9333), abs=1e-4)


@pytest.mark.parametrize(("n", "effect"), [(3, 0.0), (5, 0.0), (5, 1.0), (8, 1.0)])
def test_made_up_pools_win_as_often_as_the_power_function_says(n, effect):
    shares, power = simulated_shares(80, n, 100, effect, pools=200), detection_rate(1, effect, n)
    # The planted difference is in units of the pool's own standard deviation, so the mean share is a little off.
    assert shares.mean() == pytest.approx(power, abs=0.015)
    assert shares.std() == pytest.approx(math.sqrt(power * (1 - power) / 100), rel=0.35)


def test_comparisons_of_a_normal_pool_win_by_chance_alone():
    assert_rate(wins(comparisons(pool(), 3, 60)).found, 60, ALPHA)
