"""Compares a variant with itself under other seeds, as it is or with a planted difference.

A study of one variant with many seeds is a pool of runs. A shuffle of the pool gives disjoint groups of seeds. The
groups are compared in twos, by the functions that a report uses. The k-th seeds of two groups make a pair: two
independent runs of one config. So every win is false, unless a difference is planted.

Comparisons of one shuffle share no run. Those of two shuffles share some, so they are not quite independent.
`simulated_shares` says what that does.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slm_core.errors import UserError
from slm_core.studies.comparison import Comparison, compare_all
from slm_core.studies.report.summary import final_losses
from slm_core.studies.results import CellResult, StudyResult
from slm_core.studies.statistics import CONFIDENCE, interval_factor

FIRST, SECOND = "itself", "itself, other seeds"
"""The names of the two variants of a comparison."""
WINS = ("better", "worse")
"""The verdicts that call one of the two variants better."""
POOLS, CHUNK = 2000, 50
"""Pools that `simulated_shares` makes up, and how many of them are in memory at once."""


@dataclass(frozen=True)
class Rate:
    """How often something happened.

    Args:
      found: how often.
      trials: of how many.
    """

    found: int
    trials: int

    @property
    def share(self) -> float:
        """The share of the trials."""
        return self.found / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95% interval of the share, if trials are independent (Clopper and Pearson, 1934)."""
        from scipy import stats

        low, high = stats.binomtest(self.found, self.trials).proportion_ci(CONFIDENCE, method="exact")
        return float(low), float(high)


def comparisons(pool: StudyResult, n: int, count: int, planted: float = 0.0) -> list[Comparison]:
    """Compares the pool's variant with itself.

    Args:
      pool: a study of one variant.
      n: seeds of each of the two groups.
      count: number of comparisons.
      planted: nats per token that are added to every loss of the second group.

    Raises:
      UserError: the pool has more than one variant, or fewer than 2 n seeds with a loss.
    """
    if len(pool.variants) > 1:
        raise UserError(f"study {pool.name!r} has {len(pool.variants)} variants; it must have one, with many seeds")
    seeds = list(final_losses(pool, pool.variants[0].name))
    if len(seeds) < 2 * n:
        raise UserError(
            f"study {pool.name!r} has {len(seeds)} seeds with a loss; {2 * n} are needed: give more --seeds"
        )
    drawn = itertools.islice(_groups(len(seeds), n), count)
    pairs = (([seeds[i] for i in first], [seeds[i] for i in second]) for first, second in drawn)
    return [compare_all(against_itself(pool, first, second, planted))[0] for first, second in pairs]


def against_itself(pool: StudyResult, first: Sequence[int], second: Sequence[int], planted: float = 0.0) -> StudyResult:
    """Makes a study of two variants of the pool's runs: the k-th seeds of both groups become the pair k."""
    facts = pool.variants[0]
    cells = {(cell.framework, cell.seed): cell for cell in pool.cells}
    renamed = [
        dataclasses.replace(_shifted(cells[framework, seed], shift), variant=name, seed=place)
        for name, seeds, shift in ((FIRST, first, 0.0), (SECOND, second, planted))
        for place, seed in enumerate(seeds)
        for framework in pool.frameworks
    ]
    return dataclasses.replace(
        pool,
        variants=tuple(dataclasses.replace(facts, name=name) for name in (FIRST, SECOND)),
        seeds=tuple(range(len(first))),
        cells=tuple(renamed),
    )


def wins(compared: Sequence[Comparison]) -> Rate:
    """Counts the comparisons that call one of the two variants better."""
    return Rate(sum(comparison.verdict.kind in WINS for comparison in compared), len(compared))


def sd_of_differences(pool: StudyResult) -> float:
    """Computes the standard deviation of the difference of two of the pool's runs, nats per token."""
    return math.sqrt(2) * float(np.std(list(final_losses(pool, pool.variants[0].name).values()), ddof=1))


def simulated_shares(runs: int, n: int, count: int, effect: float, pools: int = POOLS) -> np.ndarray:
    """Computes the share of wins in pools of made-up runs whose losses are normal, [pools].

    Each pool has the same groups as `comparisons` makes. So the spread of these shares is what chance does to a share
    of `comparisons`. It counts that runs are used again, which a binomial interval does not.

    Args:
      runs, n, count: seeds of the pool, seeds of a group, comparisons.
      effect: the planted difference, in standard deviations of the difference of two runs of the pool.
      pools: number of made-up pools.
    """
    first, second = (np.array(part) for part in zip(*itertools.islice(_groups(runs, n), count), strict=True))
    rng, shares = np.random.default_rng(1), []
    for _ in range(0, pools, CHUNK):
        losses = rng.normal(size=(CHUNK, runs))
        planted = effect * math.sqrt(2) * losses.std(axis=1, ddof=1)
        differences = losses[:, second] - losses[:, first] + planted[:, None, None]
        errors = differences.std(axis=2, ddof=1) / math.sqrt(n)
        shares.append(np.mean(np.abs(differences.mean(axis=2)) >= interval_factor(n - 1) * errors, axis=1))
    return np.concatenate(shares)[:pools]


def _groups(runs: int, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields places of two disjoint groups of n runs without end: shuffle after shuffle, the same ones at each call."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(runs)
        for start in range(0, runs - 2 * n + 1, 2 * n):
            yield order[start : start + n], order[start + n : start + 2 * n]


def _shifted(cell: CellResult, shift: float) -> CellResult:
    points = (dataclasses.replace(point, loss=point.loss + shift) for point in cell.evaluations)
    return dataclasses.replace(cell, evaluations=tuple(points))
