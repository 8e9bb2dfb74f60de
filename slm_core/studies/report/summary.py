"""Sums up the runs of a study: losses per seed, means with intervals, curves, costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slm_core.planner.report import TWINS
from slm_core.studies.results import CellResult, StudyResult, VariantFacts
from slm_core.studies.statistics import interval_factor


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Args:
      mean: nats per token; NaN without a run.
      half: half the width of its 95% interval by Student's t; NaN with fewer than two seeds.
      n: number of seeds.
    """

    mean: float
    half: float
    n: int


@dataclass(frozen=True)
class Curves:
    """The evaluations of a variant in one twin, all seeds at the same tokens.

    Args:
      tokens: tokens trained on, [points].
      losses: {seed: nats per token, [points]}.
    """

    tokens: np.ndarray
    losses: dict[int, np.ndarray]

    @property
    def stacked(self) -> np.ndarray:
        """The losses, [seeds, points]."""
        return np.stack(list(self.losses.values()))


def framework_name(framework: str) -> str:
    """Returns the name of a twin: "PyTorch" for "torch"."""
    return TWINS.get(framework, framework)


def framework_names(result: StudyResult) -> str:
    """Returns the names of a study's twins, "PyTorch and Flax"."""
    return " and ".join(map(framework_name, result.frameworks))


def mean(values: Sequence[float]) -> Mean:
    """Computes a mean and its 95% interval by Student's t distribution."""
    n = len(values)
    if n < 2:
        return Mean(values[0] if n else math.nan, math.nan, n)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return Mean(float(np.mean(values)), interval_factor(n - 1) * error, n)


def final_losses(result: StudyResult, variant: str, framework: str = "") -> dict[int, float]:
    """Returns {seed: final loss} in one twin, or the mean of the twins that finished that seed."""
    frameworks = [framework] if framework else result.frameworks
    by_twin = [result.finished(variant, twin) for twin in frameworks]
    losses = {seed: [cells[seed].loss for cells in by_twin if seed in cells] for seed in result.seeds}
    return {seed: float(np.mean(values)) for seed, values in losses.items() if values}


def accuracies(result: StudyResult, variant: str) -> list[float]:
    """Returns the final accuracies of a variant's finished runs, in every twin."""
    cells = [cell for twin in result.frameworks for cell in result.finished(variant, twin).values()]
    return [cell.evaluations[-1].accuracy for cell in cells if cell.evaluations[-1].accuracy is not None]


def curves(result: StudyResult, variant: str, framework: str) -> Curves | None:
    """Returns the evaluations that all finished seeds have in common; None if there are none."""
    by_seed = {
        seed: {point.tokens: point.loss for point in cell.evaluations}
        for seed, cell in result.finished(variant, framework).items()
    }
    tokens = sorted(set.intersection(*(set(points) for points in by_seed.values()))) if by_seed else []
    if not tokens:
        return None
    return Curves(np.array(tokens), {s: np.array([p[token] for token in tokens]) for s, p in by_seed.items()})


def difference_curves(result: StudyResult, variant: str, framework: str) -> Curves | None:
    """Computes variant minus baseline, per seed, over the tokens. Between two evaluations the baseline is a line."""
    ours, base = (curves(result, name, framework) for name in (variant, result.variants[0].name))
    if ours is None or base is None:
        return None
    seeds = [seed for seed in ours.losses if seed in base.losses]
    inside = (ours.tokens >= base.tokens[0]) & (ours.tokens <= base.tokens[-1])
    if not seeds or not inside.any():
        return None
    tokens = ours.tokens[inside]
    return Curves(tokens, {s: ours.losses[s][inside] - np.interp(tokens, base.tokens, base.losses[s]) for s in seeds})


def tokens_of_run(variant: VariantFacts) -> int:
    """Returns the tokens that a whole run of a variant trains on."""
    return variant.steps * variant.tokens_per_update


def speed(result: StudyResult, variant: str, framework: str) -> float:
    """Returns the median over the seeds of the tokens per second; NaN if no run finished."""
    speeds = [cell.tokens_per_second for cell in result.finished(variant, framework).values()]
    return float(np.median(speeds)) if speeds else math.nan


def peak_memory(result: StudyResult, variant: str, framework: str) -> int:
    """Returns the largest peak memory over the seeds, bytes; 0 if no run finished."""
    return max((cell.peak_memory_bytes for cell in result.finished(variant, framework).values()), default=0)


def missing(result: StudyResult) -> list[tuple[str, str, int, str]]:
    """Returns (variant, framework, seed, reason) of each run without a final loss."""
    cells = {(c.variant, c.framework, c.seed): c for c in result.cells}
    keys = [(v.name, f, s) for v in result.variants for f in result.frameworks for s in result.seeds]
    reasons = ((key, _why_missing(cells.get(key))) for key in keys)
    return [(*key, reason) for key, reason in reasons if reason]


def _why_missing(cell: CellResult | None) -> str:
    if cell is None:
        return "not started"
    if cell.error:
        return cell.error
    if not cell.finished:
        return f"stopped after update {cell.evaluations[-1].step}" if cell.evaluations else "not finished"
    return "" if math.isfinite(cell.loss) else "the final loss is not finite"
