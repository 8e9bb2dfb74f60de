"""Counts how often a planted difference is found, beside the power function and beside made-up runs."""

from dataclasses import dataclass

import numpy as np

from slm_core.studies.calibration.itself import Rate, comparisons, sd_of_differences, simulated_shares, wins
from slm_core.studies.report.summary import final_losses
from slm_core.studies.results import StudyResult
from slm_core.studies.statistics import ALPHA, detection_rate


@dataclass(frozen=True)
class Planted:
    """How often a difference that was planted into a variant was found.

    Args:
      n: seeds of a comparison.
      effect: the planted difference, in standard deviations of the difference of two runs; 0: none was planted.
      difference: the same in nats per token.
      rate: how often a comparison called one of the two variants better.
      power: the rate that `detection_rate` computes.
      low, high: the range of the share in pools of normal losses, see `simulated_shares`.
      exceeding: the part of those pools whose share is above ALPHA.
    """

    n: int
    effect: float
    difference: float
    rate: Rate
    power: float
    low: float
    high: float
    exceeding: float

    @property
    def expected(self) -> bool:
        """Whether the share lies within the range of normal losses."""
        return self.low <= self.rate.share <= self.high


def measure(pool: StudyResult, n: int, effect: float, count: int, confidence: float) -> Planted:
    """Plants a difference, and counts how often it is found.

    Args:
      pool: a study of one variant with many seeds.
      n, effect: see `Planted`.
      count: number of comparisons.
      confidence: the part of the made-up pools whose share lies within `low` and `high`.
    """
    sd = sd_of_differences(pool)
    rate = wins(comparisons(pool, n, count, effect * sd))
    shares = simulated_shares(len(final_losses(pool, pool.variants[0].name)), n, count, effect)
    low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
    exceeding = float(np.mean(shares > ALPHA))
    return Planted(n, effect, effect * sd, rate, detection_rate(1, effect, n), float(low), float(high), exceeding)
