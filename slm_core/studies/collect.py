"""Reads what the runs of a study have measured so far."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from slm_core.config.fields import flatten
from slm_core.errors import UserError
from slm_core.logging import say_once
from slm_core.runs.description import read_description
from slm_core.runs.provenance import versions
from slm_core.studies.machine import processor
from slm_core.studies.results import CellResult, Point, StudyResult, Trial, VariantFacts
from slm_core.studies.runner import failure, steps_done
from slm_core.studies.study import Cell, Study, read_study
from slm_core.training.metrics import read_metrics


def collect(study: Study, trials: Sequence[Trial] = ()) -> StudyResult:
    """Gathers everything that the report shows."""
    base = study.base
    return StudyResult(
        name=study.folder.name,
        question=study.question,
        command=study.command,
        preset=study.preset,
        fields=flatten(base),
        match=study.match,
        variants=tuple(_facts(study, index) for index in range(len(study.variants))),
        frameworks=study.frameworks,
        seeds=tuple(base.seed + seed for seed in range(study.seeds)),
        cells=tuple(_result(study.folder, cell) for cell in study.cells()),
        trials=tuple(trials),
        versions=versions(),
        machine=processor(),
    )


def collect_finished(folder: Path) -> StudyResult:
    """Gathers a study all of whose runs are finished. Raises UserError for any other."""
    study = read_study(folder)
    result = collect(study)
    left = sum(not cell.finished for cell in result.cells)
    if left:
        raise UserError(f"{folder}: {left} of {len(result.cells)} runs are not finished; continue it: {study.command}")
    return result


def _facts(study: Study, index: int) -> VariantFacts:
    variant = study.variants[index]
    facts, config = study.facts.get(variant.name, {}), study.config(variant)
    return VariantFacts(
        name=variant.name,
        overrides=dict(variant.overrides),
        adjusted=study.adjusted.get(variant.name, {}),
        notes=study.notes.get(variant.name, ()),
        parameters=facts.get("parameters", 0),
        flops=facts.get("flops"),
        steps=config.train.steps,
        tokens_per_update=config.train.batch_size * config.data.seq_len,
    )


def _result(folder: Path, cell: Cell) -> CellResult:
    path = folder / cell.name
    return read_run(path, cell.variant, cell.framework, cell.seed, failure(folder, cell.name))


def read_run(path: Path, variant: str, framework: str, seed: int, error: str = "") -> CellResult:
    """Reads the metrics of one run; of a run that was not begun, nothing but its names."""
    rows = read_metrics(path / "metrics.jsonl")
    if not rows and steps_done(path):
        say_once(
            f"{path}: metrics.jsonl is missing or empty, though the run has steps: it counts as one without results"
        )
    training = [row for row in rows if row["split"] == "train" and row["tokens_per_second"]]
    evaluations = [row for row in rows if row["split"] == "eval"]
    peaks = [row["peak_memory_bytes"] for row in rows if row["peak_memory_bytes"]]
    return CellResult(
        variant=variant,
        framework=framework,
        seed=seed,
        folder=str(path),
        evaluations=tuple(
            Point(row["step"], row["tokens"], math.nan if row["loss"] is None else row["loss"], row.get("accuracy"))
            for row in evaluations
        ),
        finished=_finished(path),
        tokens_per_second=statistics.median(row["tokens_per_second"] for row in training) if training else 0.0,
        peak_memory_bytes=max(peaks, default=0),
        error=error,
    )


def _finished(path: Path) -> bool:
    try:
        return steps_done(path) >= read_description(path)["config"].train.steps
    except UserError:
        return False
