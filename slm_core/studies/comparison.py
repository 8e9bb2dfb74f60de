"""Compares the variants of a study with its baseline, seed by seed.

For one seed, two variants share what they can: initial values, the order of batches, dropout and the validation text.
So the unit of analysis is the difference per seed: loss of the variant minus loss of the baseline.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm_core.studies.results import Point, StudyResult
from slm_core.studies.statistics import holm, interval_factor, paired
from slm_core.studies.verdict import Evidence, Verdict, verdict

MARGIN = 0.002
"""Two variants are the same if their difference is surely below this part of the baseline's loss: 0.004 of 2 nats."""


@dataclass(frozen=True)
class TokensRatio:
    """How many tokens a variant needs to reach the baseline's final loss, over what the baseline needs.

    Args:
      ratio: geometric mean over the seeds; NaN if a seed does not reach that loss. Below 1, the variant is faster.
      low: lower end of its 95% interval, from the paired logarithms of the ratios.
      high: upper end.
      reached: number of seeds that reach that loss, in every framework that has them.
      n: number of seeds.
    """

    ratio: float
    low: float
    high: float
    reached: int
    n: int


@dataclass(frozen=True)
class Comparison(Evidence):
    """A variant compared with the baseline, and the verdict."""

    tokens: TokensRatio
    verdict: Verdict


def compare_all(result: StudyResult) -> list[Comparison]:
    """Compares every variant but the first with the first, the baseline.

    Holm's method corrects the pooled p values of all comparisons. Missing and failed runs do not count.
    """
    baseline, *others = [variant.name for variant in result.variants]
    pooled = {name: paired(differences(result, name)) for name in others}
    corrected = dict(zip(others, holm([part.p_t for part in pooled.values()]), strict=True))
    tested = sum(not math.isnan(p) for p in corrected.values())
    comparisons = []
    for name in others:
        evidence = Evidence(
            variant=name,
            baseline=baseline,
            frameworks={framework: paired(differences(result, name, framework)) for framework in result.frameworks},
            pooled=pooled[name],
            p_holm=corrected[name],
            floor=rounding_floor(result, name),
            margin=_margin(result),
            comparisons=max(tested, 1),
            seeds=len(result.seeds),
            diverged=_diverged(result, (baseline, name)),
        )
        comparisons.append(Comparison(**vars(evidence), tokens=tokens_ratio(result, name), verdict=verdict(evidence)))
    return comparisons


def differences(result: StudyResult, variant: str, framework: str | None = None) -> dict[int, float]:
    """Computes loss(variant) - loss(baseline) per seed, in nats per token. Below 0, the variant is better.

    Without `framework`, it is the mean of the frameworks' differences of that seed. The twins of one seed are not
    independent: they differ by rounding alone. Counted as two, they would make the interval too narrow.

    Returns:
      {seed: difference}, for the seeds that both variants finished with a finite loss. Pooled, a seed that only one
      framework has finished counts with that one.
    """
    if framework is None:
        return _mean_per_seed([differences(result, variant, each) for each in result.frameworks])
    ours, theirs = (_losses(result, name, framework) for name in (variant, result.variants[0].name))
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


def twin_differences(result: StudyResult, variant: str) -> dict[int, float]:
    """Computes, per seed, a variant's loss in the first framework minus that in the second; {} with one framework."""
    if len(result.frameworks) < 2:
        return {}
    first, second = (_losses(result, variant, framework) for framework in result.frameworks[:2])
    return {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}


def rounding_floor(result: StudyResult, variant: str, framework: str | None = None) -> float | None:
    """Computes how large a mean difference rounding alone can make: half the width of its 95% interval.

    The twins are the same function, so r = loss(torch) - loss(flax) of one seed is rounding alone. It is the difference
    of two runs, so the rounding of one run of that variant has the variance mean(r^2) / 2. A difference of the variant
    and the baseline has the sum of both variances. The mean of k frameworks has that over k. The mean of n seeds has
    that over n.

    The degrees of freedom are Welch's and Satterthwaite's: the number of pairs of twins, if both variants round alike.
    This assumes that the twins' roundings are independent. Where they round alike, the floor is too low.

    Args:
      result: the study.
      variant: the variant that is compared with the baseline.
      framework: floor of this framework's mean difference; of the pooled one without it.

    Returns:
      The floor, in nats per token; None if only one framework ran.
    """
    squares = [np.square(list(twin_differences(result, name).values())) for name in (variant, result.variants[0].name)]
    frameworks = result.frameworks if framework is None else (framework,)
    seeds = [seed for each in frameworks for seed in differences(result, variant, each)]
    if not seeds or not all(len(part) for part in squares):
        return None
    variances = np.array([part.mean() / 2 for part in squares])
    if not variances.sum():
        return 0.0
    freedom = variances.sum() ** 2 / sum(v**2 / len(part) for v, part in zip(variances, squares, strict=True))
    distinct = set(seeds)
    per_seed = sum(1 / seeds.count(seed) for seed in distinct) / len(distinct)
    return interval_factor(freedom) * math.sqrt(variances.sum() * per_seed / len(distinct))


def tokens_to_reach(evaluations: Sequence[Point], loss: float) -> float | None:
    """Computes after how many tokens a run reaches a loss; None if it never does.

    It interpolates the running minimum of the evaluations linearly. It leaves out losses that are not finite. If the
    first evaluation is low enough, its tokens are the answer.
    """
    points = [point for point in evaluations if math.isfinite(point.loss)]
    lowest = math.inf
    for i, point in enumerate(points):
        if point.loss <= loss:
            if i == 0:
                return float(point.tokens)
            part = (lowest - loss) / (lowest - point.loss)
            return points[i - 1].tokens + part * (point.tokens - points[i - 1].tokens)
        lowest = min(lowest, point.loss)
    return None


def tokens_ratio(result: StudyResult, variant: str) -> TokensRatio:
    """Compares learning curves: the tokens to the baseline's final loss, over those that the baseline itself needs.

    Pairs of runs have the same seed and framework. Per seed, the logarithms are averaged over the frameworks.
    """
    logs = [_log_ratios(result, variant, framework) for framework in result.frameworks]
    per_seed = _mean_per_seed(logs)
    reached = sum(math.isfinite(value) for value in per_seed.values())
    if not per_seed or reached < len(per_seed):
        return TokensRatio(math.nan, math.nan, math.nan, reached, len(per_seed))
    part = paired(per_seed)
    return TokensRatio(math.exp(part.mean), math.exp(part.low), _exp(part.high), reached, part.n)


def _log_ratios(result: StudyResult, variant: str, framework: str) -> dict[int, float]:
    """Returns {seed: logarithm of the ratio}: NaN if the variant does not reach the loss."""
    ours, theirs = (result.finished(name, framework) for name in (variant, result.variants[0].name))
    ratios = {}
    for seed in differences(result, variant, framework):
        loss = theirs[seed].loss
        pair = [tokens_to_reach(cells[seed].evaluations, loss) for cells in (ours, theirs)]
        ratios[seed] = math.log(pair[0] / pair[1]) if pair[0] and pair[1] else math.nan
    return ratios


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _margin(result: StudyResult) -> float:
    """Returns the default margin of "same", in nats per token; NaN if no run of the baseline has a loss."""
    name = result.variants[0].name
    losses = [loss for each in result.frameworks for loss in _losses(result, name, each).values()]
    return MARGIN * float(np.mean(losses)) if losses else math.nan


def _mean_per_seed(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
    seeds = sorted(set().union(*parts))
    return {seed: float(np.mean([part[seed] for part in parts if seed in part])) for seed in seeds}


def _losses(result: StudyResult, variant: str, framework: str) -> dict[int, float]:
    return {seed: cell.loss for seed, cell in result.finished(variant, framework).items()}


def _diverged(result: StudyResult, variants: Sequence[str]) -> dict[str, int]:
    ended = [cell for cell in result.cells if cell.finished and cell.evaluations and not math.isfinite(cell.loss)]
    counts = {name: sum(cell.variant == name for cell in ended) for name in variants}
    return {name: count for name, count in counts.items() if count}
