"""The words of a verdict: each rule, and each number in them."""

import math

import pytest

from slm_core.studies.statistics import Paired, interval_factor, paired, seeds_needed
from slm_core.studies.verdict import Evidence, more_seeds, verdict


def part(mean: float, half_width: float, n: int = 5) -> Paired:
    """Makes the statistics of n differences with this mean and interval."""
    steps = [seed - (n - 1) / 2 for seed in range(n)]
    scale = half_width / paired(dict(enumerate(steps))).half_width
    return paired({seed: mean + scale * step for seed, step in enumerate(steps)})


def evidence(pooled: Paired, **changed) -> Evidence:
    fields = {
        "variant": "B",
        "baseline": "A",
        "frameworks": {"torch": pooled, "flax": pooled},
        "pooled": pooled,
        "p_holm": pooled.p_t,
        "floor": 0.001,
        "margin": 0.004,
        "comparisons": 1,
        "seeds": pooled.n,
        "diverged": {},
    }
    return Evidence(**(fields | changed))


def words(pooled: Paired, **changed) -> tuple[str, str]:
    answer = verdict(evidence(pooled, **changed))
    return answer.kind, answer.text


def test_the_made_up_statistics_are_as_asked():
    for n in (2, 5, 6):
        made = part(-0.012, 0.003, n)
        assert (made.mean, made.half_width, made.n) == pytest.approx((-0.012, 0.003, n))


def test_a_lower_loss_is_better_and_a_higher_one_worse():
    assert words(part(-0.012, 0.003), p_holm=0.004) == ("better", "B is better by 0.012 ± 0.003 nats (p = 0.004)")
    assert words(part(0.012, 0.003), p_holm=0.00004) == ("worse", "B is worse by 0.012 ± 0.003 nats (p < 0.0001)")


def test_the_corrected_p_value_decides_and_not_the_interval():
    assert words(part(-0.012, 0.003), p_holm=0.05)[0] == "better"
    assert words(part(-0.012, 0.003), p_holm=0.051)[0] == "undecided"


def test_nothing_at_or_below_the_rounding_floor_is_a_gain_or_a_loss():
    text = "below the rounding floor: {}0.012 ± 0.003 nats, but rounding alone can make 0.02"
    assert words(part(-0.012, 0.003), floor=0.02) == ("below the rounding floor", text.format("-"))
    assert words(part(0.012, 0.003), floor=0.02) == ("below the rounding floor", text.format("+"))
    exact = paired(dict.fromkeys(range(3), -0.25))
    assert words(exact, floor=0.25)[0] == "below the rounding floor"
    assert words(exact, floor=0.2499)[0] == words(exact, floor=None)[0] == "better"


def test_a_win_in_one_framework_alone_is_a_disagreement():
    frameworks = {"torch": part(-0.020, 0.003), "flax": part(-0.004, 0.006)}
    kind, text = words(part(-0.012, 0.003), frameworks=frameworks)
    assert kind == "frameworks disagree"
    expected = (
        "the frameworks disagree on B: -0.020 ± 0.003 nats in torch (p < 0.0001), -0.004 ± 0.006 nats in flax (p = "
    )
    assert text.startswith(expected)


def test_a_win_in_one_framework_and_a_loss_in_the_other_is_a_disagreement_even_if_the_mean_is_unsure():
    frameworks = {"torch": part(-0.020, 0.003), "flax": part(0.018, 0.006)}
    kind, text = words(part(-0.001, 0.003), frameworks=frameworks)
    assert kind == "frameworks disagree" and "-0.020 ± 0.003 nats in torch" in text and "+0.018 ± 0.006 nats" in text


def test_a_win_in_one_framework_that_the_mean_does_not_confirm_is_undecided():
    frameworks = {"torch": part(-0.020, 0.003), "flax": part(0.010, 0.02)}
    assert words(part(-0.005, 0.012), frameworks=frameworks)[0] == "undecided"


def test_a_framework_without_an_interval_cannot_confirm_a_win():
    win = part(-0.012, 0.003)
    kind, text = words(win, frameworks={"torch": win, "flax": paired({0: 0.1})}, p_holm=0.004)
    assert (kind, text) == (
        "better",
        "B is better by 0.012 ± 0.003 nats (p = 0.004); too few seeds in flax to confirm it",
    )


def test_one_framework_needs_no_confirmation():
    win = part(-0.012, 0.003)
    assert words(win, frameworks={"torch": win}, floor=None, p_holm=0.004)[1].endswith("(p = 0.004)")


def test_an_interval_within_the_margin_is_the_same():
    assert words(part(0.001, 0.003), margin=0.0041) == ("same", "no difference larger than 0.004 nats can be seen")
    assert words(part(-0.001, 0.00213), margin=0.0041) == ("same", "no difference larger than 0.0032 nats can be seen")
    assert words(part(0.001, 0.003), margin=0.0039)[0] == "undecided"
    assert words(part(0.001, 0.003), margin=math.nan)[0] == "undecided"


def test_equal_losses_are_the_same():
    text = "no difference: B and A have the same loss on every seed"
    assert words(paired(dict.fromkeys(range(3), 0.0)), p_holm=1.0) == ("same", text)


def test_an_undecided_comparison_names_the_seeds_that_would_find_the_difference():
    pooled = part(-0.012, 0.014)
    more = seeds_needed(pooled.sd, 0.012) - 5
    assert more == 5
    text = f"undecided: about {more} more seeds would decide it (-0.012 ± 0.014 nats, p = {pooled.p_t:.2g})"
    assert words(pooled) == ("undecided", text)


def test_more_comparisons_need_more_seeds():
    pooled = part(-0.012, 0.014)
    assert more_seeds(evidence(pooled, comparisons=10)) == seeds_needed(pooled.sd, 0.012, 0.005) - 5 > 5


def test_an_undecided_comparison_names_the_seeds_that_would_show_that_there_is_no_difference():
    pooled = part(0.0005, 0.005)
    more = more_seeds(evidence(pooled))
    assert seeds_needed(pooled.sd, 0.0005) > 100
    half_widths = [interval_factor(n - 1) * pooled.sd / math.sqrt(n) for n in (5 + more - 1, 5 + more)]
    assert half_widths[0] > 0.0035 >= half_widths[1]
    assert words(pooled)[1].startswith(f"undecided: about {more} more seeds would decide it")


def test_one_more_seed_is_singular():
    assert words(part(-0.012, 0.003), p_holm=0.06)[1].startswith("undecided: about 1 more seed would decide it")


@pytest.mark.parametrize("mean", [0.0045, 0.004])
def test_a_number_of_seeds_beyond_a_hundred_is_not_named(mean):
    assert words(part(mean, 0.1))[1].startswith("undecided: more than 100 more seeds would be needed (+0.00")


def test_without_two_seeds_nothing_is_decided():
    text = "undecided: one seed gives no interval, at least 1 more is needed; 1 of 5 seeds counts"
    assert words(paired({0: -0.5}), seeds=5) == ("undecided", text)
    assert words(paired({}), seeds=5) == ("undecided", "undecided: no seed has finished in both B and A")
    assert more_seeds(evidence(paired({}))) is None


def test_missing_seeds_are_told():
    assert words(part(-0.012, 0.003, 4), seeds=5)[1].endswith("; 4 of 5 seeds count")


def test_a_variant_that_diverged_is_not_judged_by_the_seeds_that_are_left():
    text = "B diverged in 2 runs: the other seeds prove nothing; 3 of 5 seeds count"
    assert words(part(-0.012, 0.003, 3), seeds=5, diverged={"B": 2}) == ("diverged", text)
    assert words(paired({}), seeds=5, diverged={"A": 1, "B": 2})[1].startswith(
        "A diverged in 1 run and B diverged in 2"
    )


@pytest.mark.parametrize(
    ("mean", "half_width", "expected"),
    [
        (0.01234, 0.0034, "0.012 ± 0.003"),
        (0.01234, 0.0014, "0.0123 ± 0.0014"),
        (0.5, 0.00096, "0.5000 ± 0.0010"),
        (2.345, 0.24, "2.3 ± 0.2"),
        (345.6, 34.0, "345.6 ± 34.0"),
        (0.00000912, 0.0000021, "0.000009 ± 0.000002"),
    ],
)
def test_a_difference_has_the_decimals_of_its_interval(mean, half_width, expected):
    assert f"by {expected} nats" in words(part(mean, half_width), floor=None)[1]


def test_a_difference_without_a_spread_has_four_decimals():
    assert "by 0.2500 ± 0.0000 nats" in words(paired(dict.fromkeys(range(3), -0.25)))[1]
