"""Measures how small a difference a finished study of two variants resolves, and how long it took."""

import math
from dataclasses import dataclass
from pathlib import Path

from slm_core.errors import UserError
from slm_core.studies.comparison import Comparison, compare_all
from slm_core.studies.results import StudyResult
from slm_core.studies.statistics import POWER, interval_factor, smallest_visible


@dataclass(frozen=True)
class Resolution:
    """What a comparison can see. Differences are in nats per token.

    Args:
      comparison: of the study's two variants.
      level: the p value that counts as resolved.
      error: standard error of the mean difference.
      resolved: a mean difference of this has the p value `level` with this standard error and number of seeds.
      visible: a true difference of this reaches that level in 80% of all studies of this size.
      seconds: from the first run's start to the last run's end, by the times of their files.
    """

    comparison: Comparison
    level: float
    error: float
    resolved: float
    visible: float
    seconds: float


def resolution(study: StudyResult, level: float) -> Resolution:
    """Computes what a study of two variants resolves.

    Raises:
      UserError: it has another number of variants, or fewer than two seeds.
    """
    if len(study.variants) != 2:
        raise UserError(f"study {study.name!r} has {len(study.variants)} variants; it must have two")
    comparison = compare_all(study)[0]
    sd, n = comparison.pooled.sd, comparison.pooled.n
    if n < 2:
        raise UserError(f"study {study.name!r} has {n} seeds with a loss in both variants; at least 2 are needed")
    error = sd / math.sqrt(n)
    resolved = interval_factor(n - 1, 1 - level) * error
    return Resolution(comparison, level, error, resolved, smallest_visible(sd, n, level, POWER), elapsed(study))


def elapsed(study: StudyResult) -> float:
    """Returns the seconds between the first file and the last file that the runs of a finished study wrote."""
    folders = [Path(cell.folder) for cell in study.cells]
    began = min((folder / "config.json").stat().st_mtime for folder in folders)
    return max((folder / "metrics.jsonl").stat().st_mtime for folder in folders) - began
