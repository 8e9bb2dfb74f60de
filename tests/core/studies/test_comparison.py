"""The comparison of variants with a baseline, on made-up studies whose truth is known."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from slm_core.studies.comparison import (
    compare_all,
    differences,
    rounding_floor,
    tokens_ratio,
    tokens_to_reach,
    twin_differences,
)
from slm_core.studies.results import Point
from slm_core.studies.statistics import ALPHA, paired
from tests.core.studies.made_up import TOKENS, assert_rate, study

NAN = math.nan


def random_study(rng, seeds: int, effects: dict[str, float], sd: float = 0.01, rounding: float = 0.0):
    """Makes up a study. Losses have a part per seed, a true effect, noise of `sd`, and rounding per framework."""
    common = rng.normal(2, 0.3, seeds)
    truths = {name: common + effect + rng.normal(0, sd / math.sqrt(2), seeds) for name, effect in effects.items()}
    return study(
        {
            name: {framework: list(truth + rng.normal(0, rounding, seeds)) for framework in ("torch", "flax")}
            for name, truth in truths.items()
        }
    )


def test_differences_are_variant_minus_baseline_per_seed():
    result = study({"a": {"torch": [2.0, 3.0], "flax": [2.5, 3.5]}, "b": {"torch": [1.5, 3.25], "flax": [1.5, 4.0]}})
    assert differences(result, "b", "torch") == {0: -0.5, 1: 0.25}
    assert differences(result, "b", "flax") == {0: -1.0, 1: 0.5}


def test_the_pooled_difference_is_the_mean_of_the_frameworks_and_not_two_seeds():
    result = study({"a": {"torch": [2.0, 3.0], "flax": [2.5, 3.5]}, "b": {"torch": [1.5, 3.25], "flax": [1.5, 4.0]}})
    assert differences(result, "b") == {0: -0.75, 1: 0.375}


def test_only_seeds_that_both_variants_finished_with_a_finite_loss_count():
    torch = {"a": [2.0, 2.0, None, 2.0, 2.0], "b": [1.0, None, 1.0, NAN, 1.5]}
    flax = {"a": [2.0, 2.0, None, None, None], "b": [2.0, 1.0, 1.0, None, None]}
    result = study({name: {"torch": torch[name], "flax": flax[name]} for name in "ab"})
    assert differences(result, "b", "torch") == {0: -1.0, 4: -0.5}
    assert differences(result, "b") == {0: -0.5, 1: -1.0, 4: -0.5}  # a seed of one framework counts with that one


def test_pairing_removes_what_the_seeds_have_in_common():
    result = random_study(np.random.default_rng(0), 20, {"a": 0.0, "b": 0.0})
    unpaired = [loss for name in "ab" for loss in [cell.loss for cell in result.cells if cell.variant == name]]
    assert paired(differences(result, "b")).sd < np.std(unpaired) / 10


def test_twins_differ_by_the_first_framework_minus_the_second():
    result = study({"a": {"torch": [2.0, 3.0, 4.0], "flax": [2.5, None, 3.5]}})
    assert twin_differences(result, "a") == {0: -0.5, 2: 0.5}
    assert twin_differences(study({"a": {"torch": [2.0]}}), "a") == {}


def test_the_rounding_floor_is_that_of_a_table_of_students_t():
    # Every |r| is 0.01: a difference in one framework has the variance 0.0001, of 3 seeds that over 3. Two variants of
    # 3 seeds are 6 pairs of twins, and t(97.5%, 6 degrees of freedom) is 2.447.
    torch, flax = [2.0, 2.0, 2.0], [2.01, 1.99, 2.01]
    result = study({name: {"torch": torch, "flax": flax} for name in "ab"})
    one = 2.4469 * 0.01 / math.sqrt(3)
    assert rounding_floor(result, "b", "torch") == pytest.approx(one, rel=1e-4)
    assert rounding_floor(result, "b", "flax") == pytest.approx(one, rel=1e-4)
    assert rounding_floor(result, "b") == pytest.approx(one / math.sqrt(2), rel=1e-4)


def test_a_variant_that_rounds_alone_has_half_the_variance_and_its_own_degrees_of_freedom():
    flat = {"torch": [2.0, 2.0, 2.0], "flax": [2.0, 2.0, 2.0]}
    result = study({"a": flat, "b": {"torch": [2.0, 2.0, 2.0], "flax": [2.01, 1.99, 2.01]}, "c": flat})
    expected = stats.t.ppf(0.975, 3) * 0.01 / math.sqrt(2) / math.sqrt(3)
    assert rounding_floor(result, "b", "torch") == pytest.approx(expected)
    assert rounding_floor(result, "c") == 0.0  # another variant's rounding is not this one's


def test_a_seed_of_one_framework_has_twice_the_rounding_variance_in_the_floor():
    half = {"torch": [2.0, 2.0], "flax": [2.01, None]}
    result = study({"a": half, "b": half})
    expected = stats.t.ppf(0.975, 2) * math.sqrt(0.01**2 * (1 / 2 + 1) / 2 / 2)
    assert rounding_floor(result, "b") == pytest.approx(expected)


def test_without_twins_there_is_no_rounding_floor():
    assert rounding_floor(study({"a": {"torch": [2.0]}, "b": {"torch": [1.0]}}), "b") is None
    failed = study({"a": {"torch": [2.0], "flax": [None]}, "b": {"torch": [1.0], "flax": [1.0]}})
    assert rounding_floor(failed, "b") is None
    assert (
        rounding_floor(study({"a": {"torch": [None], "flax": [2.0]}, "b": {"torch": [1.0], "flax": [1.0]}}), "b")
        is None
    )


def studies_above_the_floor(framework: str | None, studies: int) -> int:
    """Counts made-up studies in which rounding alone moves the mean difference by more than its floor."""
    rng, above = np.random.default_rng(1), 0
    for _ in range(studies):
        result = random_study(rng, 4, {"a": 0.0, "b": 0.01}, sd=0.0, rounding=0.003)
        made_by_rounding = np.mean(list(differences(result, "b", framework).values())) - 0.01
        above += abs(made_by_rounding) > rounding_floor(result, "b", framework)
    return above


def test_rounding_alone_exceeds_the_pooled_floor_in_five_percent_of_simulated_studies():
    assert_rate(studies_above_the_floor(None, 1500), 1500, 0.05)


def test_rounding_alone_exceeds_the_floor_of_one_framework_in_at_most_five_percent():
    # The difference in one framework shares its rounding with r: the rate is below 5%.
    assert 0 < studies_above_the_floor("torch", 1500) <= 0.05 * 1500


def points(*pairs: tuple[int, float]) -> list[Point]:
    return [Point(i, tokens, loss) for i, (tokens, loss) in enumerate(pairs)]


def test_tokens_to_reach_a_loss_are_those_of_numpys_interpolation():
    tokens, losses = [100, 250, 400, 800], [4.0, 3.0, 2.5, 1.5]
    curve = points(*zip(tokens, losses, strict=True))
    for loss in (4.0, 3.7, 3.0, 2.6, 2.0, 1.5):
        assert tokens_to_reach(curve, loss) == pytest.approx(np.interp(-loss, -np.array(losses), tokens))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(100, 4.0), (200, 3.0)], None),  # never
        ([(100, 1.9), (200, 1.0)], 100.0),  # before the first evaluation
        ([], None),
        ([(100, NAN)], None),
        ([(100, 3.0), (200, 5.0), (300, 1.0)], 250.0),  # from the lowest loss so far, not from the last
        ([(100, 4.0), (200, NAN), (300, 2.0), (400, 9.0)], 300.0),
    ],
)
def test_tokens_to_reach_two_nats(pairs, expected):
    assert tokens_to_reach(points(*pairs), 2.0) == expected


def curves_of(variant: str, *halfway: float) -> dict:
    """Makes learning curves that pass 2.5 nats at these parts of a run, and end at 2 nats."""
    return {
        (variant, "torch", seed): [(0, 9.0), (int(part * TOKENS), 2.5), (TOKENS, 2.0)]
        for seed, part in enumerate(halfway)
    }


def test_the_ratio_of_tokens_is_the_geometric_mean_over_the_seeds():
    losses = {"a": {"torch": [2.5, 2.5, 2.5]}, "b": {"torch": [2.0, 2.0, 2.0]}}
    ratio = tokens_ratio(study(losses, curves=curves_of("b", 0.5, 0.25, 0.5)), "b")
    logs = np.log([0.5, 0.25, 0.5])
    low, high = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert (ratio.ratio, ratio.low, ratio.high) == pytest.approx((stats.gmean([0.5, 0.25, 0.5]), low, high))
    assert (ratio.reached, ratio.n) == (3, 3)


def test_the_baseline_is_counted_to_where_it_first_reached_its_final_loss():
    losses = {"a": {"torch": [2.0]}, "b": {"torch": [2.0]}}
    curves = {("a", "torch", 0): [(200, 2.5), (400, 1.5), (TOKENS, 2.0)]}
    assert tokens_ratio(study(losses, curves=curves), "b").ratio == pytest.approx(TOKENS / 300)
    assert tokens_ratio(study(losses, curves=curves), "a").ratio == 1


def test_a_seed_that_never_reaches_the_loss_leaves_no_ratio():
    losses = {"a": {"torch": [2.0, 2.0]}, "b": {"torch": [1.9, 2.1]}}
    ratio = tokens_ratio(study(losses), "b")
    assert math.isnan(ratio.ratio) and (ratio.reached, ratio.n) == (1, 2)


def test_one_seed_gives_a_ratio_without_an_interval():
    ratio = tokens_ratio(study({"a": {"torch": [2.0]}, "b": {"torch": [2.0]}}), "b")
    assert (ratio.ratio, ratio.low, ratio.high) == (1.0, 0.0, math.inf)


def test_every_variant_but_the_first_is_compared_and_all_p_values_are_corrected():
    result = random_study(np.random.default_rng(2), 5, {"a": 0.0, "b": -0.2, "c": 0.1, "d": 0.0}, rounding=1e-4)
    comparisons = compare_all(result)
    assert [(c.variant, c.verdict.kind) for c in comparisons][:2] == [("b", "better"), ("c", "worse")]
    assert all(
        (c.baseline, c.comparisons, c.seeds, set(c.frameworks)) == ("a", 3, 5, {"torch", "flax"}) for c in comparisons
    )
    by_p = sorted(comparisons, key=lambda c: c.pooled.p_t)
    assert by_p[0].p_holm == pytest.approx(3 * by_p[0].pooled.p_t)
    assert by_p[1].p_holm == pytest.approx(max(3 * by_p[0].pooled.p_t, 2 * by_p[1].pooled.p_t))
    for comparison in comparisons:
        expected = stats.ttest_1samp(list(differences(result, comparison.variant, "flax").values()), 0)
        assert comparison.frameworks["flax"].p_t == pytest.approx(expected.pvalue)
        assert comparison.floor == rounding_floor(result, comparison.variant)
        assert comparison.tokens == tokens_ratio(result, comparison.variant)


def test_the_margin_is_a_500th_of_the_baselines_mean_loss():
    result = study({"a": {"torch": [1.0, 2.0], "flax": [3.0, None]}, "b": {"torch": [1.0, 2.0], "flax": [3.0, 9.0]}})
    assert compare_all(result)[0].margin == pytest.approx(0.004)


def test_a_study_without_any_run_is_undecided():
    empty = dataclasses.replace(study({"a": {"torch": [2.0]}, "b": {"torch": [2.0]}, "c": {"torch": [2.0]}}), cells=())
    assert [c.verdict.kind for c in compare_all(empty)] == ["undecided", "undecided"]
    assert all(c.floor is None and c.pooled.n == 0 and math.isnan(c.p_holm) for c in compare_all(empty))


def test_a_study_of_the_baseline_alone_has_no_comparisons():
    assert compare_all(study({"a": {"torch": [2.0]}})) == []


def test_a_failed_variant_does_not_disturb_the_others():
    losses = {"a": [2.0, 2.1, 1.9], "b": [1.80, 1.91, 1.70], "c": [None, None, None]}
    comparisons = compare_all(study({name: {"torch": values} for name, values in losses.items()}))
    assert [c.verdict.kind for c in comparisons] == ["better", "undecided"]
    assert comparisons[0].comparisons == 1 and comparisons[0].p_holm == comparisons[0].pooled.p_t


def test_runs_that_end_without_a_finite_loss_are_counted():
    losses = {"a": [2.0, 2.0, NAN], "b": [1.0, 1.1, 1.2], "c": [NAN, NAN, 1.0], "d": [None, 1.0, 1.0]}
    comparisons = compare_all(study({name: {"torch": values} for name, values in losses.items()}))
    assert [c.diverged for c in comparisons] == [{"a": 1}, {"a": 1, "c": 2}, {"a": 1}]


def test_studies_of_equal_variants_have_a_winner_in_at_most_five_percent():
    rng, studies = np.random.default_rng(3), 200
    kinds = [
        {c.verdict.kind for c in compare_all(random_study(rng, 5, dict.fromkeys("abc", 0.0), rounding=0.001))}
        for _ in range(studies)
    ]
    wins = sum(bool(kind & {"better", "worse"}) for kind in kinds)
    assert wins <= ALPHA * studies + 3 * math.sqrt(studies * ALPHA * (1 - ALPHA))
