"""Makes up results of studies, whose truth the tests know."""

import math
from collections.abc import Mapping, Sequence

from slm_core.studies.results import CellResult, Point, StudyResult, VariantFacts

TOKENS = 1000
"""Tokens of a made-up run."""


def study(
    losses: Mapping[str, Mapping[str, Sequence[float | None]]],
    seeds: int | None = None,
    curves: Mapping[tuple[str, str, int], Sequence[tuple[int, float]]] | None = None,
) -> StudyResult:
    """Makes up a result.

    Args:
      losses: {variant: {framework: final loss of each seed}}. None: the run failed. The first variant is the baseline.
      seeds: number of seeds that the study asks for; by default as many as have losses.
      curves: {(variant, framework, seed): (tokens, loss) of each evaluation}, for runs with more evaluations than two.
    """
    frameworks = tuple(dict.fromkeys(framework for parts in losses.values() for framework in parts))
    cells = tuple(
        cell(variant, framework, seed, loss, (curves or {}).get((variant, framework, seed)))
        for variant, parts in losses.items()
        for framework, values in parts.items()
        for seed, loss in enumerate(values)
    )
    seeds = seeds or max(run.seed for run in cells) + 1
    facts = tuple(VariantFacts(name, {}, {}, (), 1, None, 1, 1) for name in losses)
    head = ("made_up", "", "", "default", {}, "steps", facts, frameworks, tuple(range(seeds)), cells)
    return StudyResult(*head, trials=(), versions={}, machine="")


def cell(variant: str, framework: str, seed: int, loss: float | None, curve=None) -> CellResult:
    """Makes up a run; a failed one without a loss."""
    if loss is None:
        return CellResult(variant, framework, seed, "", (), False, 1.0, 1, "RuntimeError: out of memory")
    points = [
        Point(i, tokens, value) for i, (tokens, value) in enumerate(curve or [(TOKENS // 2, 9.0), (TOKENS, loss)])
    ]
    return CellResult(variant, framework, seed, "", tuple(points), True, 1.0, 1)


def assert_rate(count: int, trials: int, rate: float) -> None:
    """Asserts that a count is within three standard deviations of what the binomial distribution expects."""
    assert abs(count - trials * rate) <= 3 * math.sqrt(trials * rate * (1 - rate)), (count, trials * rate)
