"""Measures how much of the noise pairing removes: the variance of paired differences beside that of unpaired ones."""

from dataclasses import dataclass

import numpy as np

from slm_core.studies.report.summary import final_losses
from slm_core.studies.results import StudyResult
from slm_core.studies.statistics import CONFIDENCE


@dataclass(frozen=True)
class VarianceRatio:
    """Two variances of the difference between a variant and its baseline, nats squared.

    Args:
      study, variant, baseline: names.
      n: number of seeds that both variants finished.
      paired: variance over the seeds of loss(variant) - loss(baseline).
      unpaired: variance of the same difference between runs of different seeds: the sum of both variances.
      low, high: 95% interval of the ratio.
    """

    study: str
    variant: str
    baseline: str
    n: int
    paired: float
    unpaired: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        """The paired variance over the unpaired one. One over it says how many times fewer seeds pairing needs."""
        return self.paired / self.unpaired


def variance_ratios(study: StudyResult) -> list[VarianceRatio]:
    """Computes the ratio of every variant and its baseline. Pairs with fewer than two seeds are left out."""
    baseline, *others = [variant.name for variant in study.variants]
    theirs = final_losses(study, baseline)
    made = []
    for name in others:
        ours = final_losses(study, name)
        seeds = sorted(ours.keys() & theirs.keys())
        if len(seeds) >= 2:
            losses = (np.array([part[seed] for seed in seeds]) for part in (ours, theirs))
            made.append(VarianceRatio(study.name, name, baseline, len(seeds), *variances(*losses)))
    return made


def variances(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float, float]:
    """Computes the paired and the unpaired variance, and the 95% interval of their ratio.

    The sum s and the difference d of two losses of a seed have var(d) + var(s) = 2 (var(ours) + var(theirs)). So the
    ratio is 2 / (1 + var(s) / var(d)). If both losses are normal with the same variance, s and d are independent
    (Pitman, A note on normal correlation, 1939; Morgan, 1939). Then Fisher's F distribution gives an exact interval.

    Args:
      ours, theirs: losses, [seeds]. Seeds stand at the same places.

    Returns:
      paired, unpaired, low, high.
    """
    from scipy import special

    freedom = len(ours) - 1
    difference, total = (float(np.var(part, ddof=1)) for part in (ours - theirs, ours + theirs))
    factor = float(special.fdtri(freedom, freedom, (1 + CONFIDENCE) / 2))
    low, high = (2 * difference / (difference + total * f) for f in (factor, 1 / factor))
    return difference, float(np.var(ours, ddof=1) + np.var(theirs, ddof=1)), low, high
