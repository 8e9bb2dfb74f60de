"""The statistics of a study against published numbers, scipy and simulated studies whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from slm_core.studies.statistics import (
    ALPHA,
    EXACT_SEEDS,
    detection_rate,
    holm,
    paired,
    seeds_needed,
    smallest_visible,
)
from tests.core.studies.made_up import assert_rate

# Hours of sleep that two drugs add, ten patients: Student, The probable error of a mean, Biometrika 1908; R's `sleep`.
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
# Darwin's pairs of maize plants, in eighths of an inch: Fisher, The Design of Experiments, 1935, sections 17 and 21.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def per_seed(values) -> dict[int, float]:
    return {seed: float(value) for seed, value in enumerate(values)}


def test_students_sleep_data_give_the_numbers_that_r_prints():
    drug, other = np.array(SLEEP)
    part = paired(per_seed(drug - other))
    assert part.mean == pytest.approx(-1.58)
    assert (part.low, part.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)  # t.test(..., paired=TRUE)
    assert part.p_t == pytest.approx(0.002833, abs=5e-7)
    assert part.mean / (part.sd / math.sqrt(part.n)) == pytest.approx(-4.0621, abs=5e-5)
    assert part.half_width == pytest.approx((2.4598858 - 0.7001142) / 2, abs=1e-7)


def test_the_t_test_is_scipys():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 20):
        ours, theirs = rng.normal(size=(2, n))
        expected = stats.ttest_rel(ours, theirs)
        part = paired(per_seed(ours - theirs))
        assert part.p_t == pytest.approx(expected.pvalue)
        assert (part.low, part.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_darwins_maize_gives_fishers_count_of_sign_flips():
    # Fisher counts 863 of 32,768 flips with a sum of at least 314, on one side.
    assert paired(per_seed(MAIZE)).p_permutation == pytest.approx(2 * 863 / 2**15, abs=1e-12)


def test_with_many_seeds_sign_flips_are_drawn_and_repeat_themselves():
    values = per_seed(np.random.default_rng(1).normal(0.4, 1, EXACT_SEEDS + 24))
    part = paired(values)
    assert part == paired(values)
    assert part.p_permutation == pytest.approx(part.p_t, abs=0.01)  # normal differences: both tests agree


def test_five_equal_signs_give_the_smallest_p_value_of_five_seeds():
    assert paired(per_seed([0.01, 0.02, 0.03, 0.04, 0.06])).p_permutation == 2 / 2**5


def test_without_seeds_nothing_is_known():
    part = paired({})
    assert part.n == 0 and (part.low, part.high) == (-math.inf, math.inf)
    assert all(math.isnan(value) for value in (part.mean, part.sd, part.p_t, part.p_permutation))


def test_one_seed_gives_a_mean_and_no_interval():
    part = paired({7: -0.25})
    assert (part.mean, part.low, part.high, part.n, part.p_permutation) == (-0.25, -math.inf, math.inf, 1, 1.0)
    assert math.isnan(part.sd) and math.isnan(part.p_t)


def test_two_seeds_have_the_interval_of_one_degree_of_freedom():
    part = paired({0: 1.0, 1: 3.0})
    assert (part.low, part.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)  # any table of Student's t
    assert part.p_permutation == 0.5


@pytest.mark.parametrize(("value", "p"), [(0.1, 0.0), (-0.1, 0.0), (0.0, 1.0)])
def test_equal_differences_have_an_interval_without_width(value, p):
    part = paired(dict.fromkeys(range(3), value))
    assert (part.mean, part.low, part.high, part.sd, part.p_t) == (value, value, value, 0.0, p)


def test_values_that_are_not_finite_are_left_out():
    assert paired({0: 1.0, 1: math.nan, 2: 3.0, 3: math.inf}) == paired({0: 1.0, 2: 3.0})


def test_holms_correction_gives_the_numbers_of_r_in_statsmodels_tests():
    # statsmodels, stats/tests/test_multi.py: pval0, and the columns "rawp" and "Holm" of R's multtest.
    p_values = [0.838541367553, 0.642193923795, 0.680845947633, 0.967833824309, 0.71626938238, 0.177096952723]
    p_values += [5.23656777208e-005, 0.0202732688798, 0.00028140506198, 0.0149877310796]
    expected = {6: 5.2365677720800005e-04, 8: 2.5326455578199999e-03, 9: 1.1990184863680001e-01}
    expected[7] = 1.4191288215860001e-01
    corrected = holm(p_values)
    assert {i: corrected[i] for i in expected} == pytest.approx(expected, rel=1e-12)
    assert [corrected[i] for i in (0, 1, 2, 3, 4)] == [1.0] * 5


def test_holms_correction_gives_the_numbers_of_pingouins_page():
    assert holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])


def test_comparisons_without_a_p_value_do_not_count_in_holms_correction():
    corrected = holm([0.01, math.nan, 0.03])
    assert math.isnan(corrected[1]) and [corrected[0], corrected[2]] == pytest.approx([0.02, 0.03])
    assert holm([]) == []


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_those_of_gpower(effect, n):
    # G*Power 3.1, "t tests: means, difference between two dependent means", two tails, alpha 0.05, power 0.8.
    assert seeds_needed(1, effect) == n
    assert seeds_needed(0.01, -0.01 * effect) == n


def test_power_is_that_of_rs_power_t_test():
    # Dalgaard, Introductory Statistics with R, 2nd edition, section 8.3: power.t.test(delta=10, sd=10*sqrt(2),
    # power=0.85, type="paired") gives n = 19.96892.
    sd, n = 10 * math.sqrt(2), 19.96892
    assert detection_rate(sd, 10, n) == pytest.approx(0.85, abs=1e-5)
    assert seeds_needed(sd, 10, power=0.85) == 20
    assert smallest_visible(sd, n, power=0.85) == pytest.approx(10, abs=1e-3)


def test_the_smallest_visible_difference_is_found_at_the_rate_that_defines_it():
    for n in (2, 5, 40):
        assert detection_rate(0.02, smallest_visible(0.02, n, 0.01, 0.9), n, 0.01) == pytest.approx(0.9)


def test_power_rises_with_the_difference_and_the_seeds():
    # scipy's noncentral t gives NaN in tails that are tiny.
    for alpha in (0.05, 0.001):
        assert np.all(np.diff([detection_rate(1, effect, 3, alpha) for effect in np.linspace(0, 60, 121)]) >= -1e-6)
        assert np.all(np.diff([detection_rate(1, 2, n, alpha) for n in range(2, 200)]) >= -1e-6)


def test_power_at_the_limits():
    assert seeds_needed(1, 0) is None
    assert seeds_needed(1, 1e-4) is None
    assert seeds_needed(0, 0.1) == seeds_needed(1e-6, 1) == 2
    assert smallest_visible(1, 1) == math.inf
    assert smallest_visible(0, 3) == 0
    assert detection_rate(0, 0, 5) == 0 and detection_rate(1, 0, 5) == pytest.approx(ALPHA)


def test_equal_variants_differ_in_five_percent_of_simulated_studies():
    rng, studies = np.random.default_rng(2), 4000
    found = sum(paired(per_seed(rng.normal(0, 0.01, 5))).p_t <= ALPHA for _ in range(studies))
    assert_rate(found, studies, ALPHA)


def test_a_planted_difference_is_found_at_the_rate_that_the_power_says():
    rng, studies, sd, difference = np.random.default_rng(3), 2000, 0.01, 0.015
    found = sum(paired(per_seed(rng.normal(difference, sd, 5))).p_t <= ALPHA for _ in range(studies))
    assert 0.6 < detection_rate(sd, difference, 5) < 0.9
    assert_rate(found, studies, detection_rate(sd, difference, 5))


def test_holm_keeps_the_rate_of_families_with_a_false_win():
    # Five true null hypotheses beside two false ones: without a correction, 23% of the families have a false win.
    rng, families = np.random.default_rng(5), 4000
    p_values = rng.uniform(size=(families, 5))
    corrected = [holm([1e-9, *row, 1e-8])[1:-1] for row in p_values]
    assert_rate(sum(min(row) <= ALPHA for row in corrected), families, 1 - (1 - ALPHA / 5) ** 5)
    assert_rate(int((p_values.min(axis=1) <= ALPHA).sum()), families, 1 - (1 - ALPHA) ** 5)
