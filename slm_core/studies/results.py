"""What a study measured: one `CellResult` per run. Statistics and the report read these, and nothing else."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One evaluation on the validation text.

    Args:
      step: updates done.
      tokens: tokens trained on.
      loss: nats per token.
      accuracy: share of the targets that have the largest logit; None if it was not measured.
    """

    step: int
    tokens: int
    loss: float
    accuracy: float | None = None


@dataclass(frozen=True)
class CellResult:
    """One run of a study: a variant in one twin with one seed.

    Args:
      variant: the variant's name.
      framework: "torch" or "flax".
      seed: the run's seed. Runs of one seed are paired: they share initial values by name, and the order of batches.
      folder: the run's folder.
      evaluations: in order; the last one is the final loss. Empty if the run did not get so far.
      finished: whether the last update is done.
      tokens_per_second: median of the run's lines of metrics.
      peak_memory_bytes: the largest of them.
      error: why the run failed, one line; "" if it did not.
    """

    variant: str
    framework: str
    seed: int
    folder: str
    evaluations: tuple[Point, ...]
    finished: bool
    tokens_per_second: float
    peak_memory_bytes: int
    error: str = ""

    @property
    def loss(self) -> float:
        """The final validation loss, nats per token; NaN if the run did not finish."""
        return self.evaluations[-1].loss if self.finished and self.evaluations else float("nan")


@dataclass(frozen=True)
class VariantFacts:
    """What a study knows of a variant beside its runs.

    Args:
      name: as the user named it, or made of the values that differ.
      overrides: {dotted field: value} over the study's base config. The first variant is the baseline.
      adjusted: {dotted field: value} that matching, tuning or a recommended setting changed.
      notes: one line for each of these, which says why.
      parameters: number of parameters.
      flops: floating-point operations of one update, forward and backward; None if they were not counted.
      steps: updates of a run.
      tokens_per_update: batch size times context.
    """

    name: str
    overrides: dict[str, Any]
    adjusted: dict[str, Any]
    notes: tuple[str, ...]
    parameters: int
    flops: float | None
    steps: int
    tokens_per_update: int


@dataclass(frozen=True)
class Trial:
    """One trial of the search for a variant's own settings.

    Args:
      variant: the variant's name.
      values: {dotted field: value}.
      loss: its final validation loss, nats per token; None if it failed or is not finished.
    """

    variant: str
    values: dict[str, Any]
    loss: float | None


@dataclass(frozen=True)
class StudyResult:
    """Everything that the report of a study shows.

    Args:
      name: the study's name, which is its folder's.
      question: one sentence; what the study asks.
      command: the command line that makes it again.
      preset: the base preset.
      fields: {dotted field: value} of the base config.
      match: what the variants have in common: "steps", "tokens", "parameters", "flops" or "time".
      variants: in the user's order; the first is the baseline.
      frameworks: in the user's order.
      seeds: in order.
      cells: the runs so far.
      trials: of the tuning, if there was one.
      versions: {package: version}.
      machine: one line.
    """

    name: str
    question: str
    command: str
    preset: str
    fields: dict[str, Any]
    match: str
    variants: tuple[VariantFacts, ...]
    frameworks: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[CellResult, ...]
    trials: tuple[Trial, ...]
    versions: dict[str, str]
    machine: str

    def finished(self, variant: str, framework: str) -> dict[int, CellResult]:
        """Returns {seed: run} of a variant's finished runs in one twin with a finite loss, in the seeds' order."""
        cells = {cell.seed: cell for cell in self.cells if (cell.variant, cell.framework) == (variant, framework)}
        return {seed: cells[seed] for seed in self.seeds if seed in cells and math.isfinite(cells[seed].loss)}
