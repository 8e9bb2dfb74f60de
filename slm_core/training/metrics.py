"""Writes `metrics.jsonl` and `details.jsonl`, the record of a run, and tells the trackers the same.

Each line of `metrics.jsonl` is one JSON object with exactly the fields of `FIELDS`. A value is null if it does not
apply to the line, or if it is not finite (JSON has no NaN). A line of `details.jsonl` has the step and whatever the
engine's `details` measured. The files are the truth: a resumed run cuts them back to the checkpoint's step, and
continues them as if nothing had happened.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from slm_core.files import write_atomically
from slm_core.runs.folder import read_samples
from slm_core.training.trackers.base import Tracker

FIELDS = (
    "step",
    "split",
    "loss",
    "accuracy",
    "lr",
    "grad_norm",
    "tokens",
    "tokens_per_second",
    "loss_scale",
    "skipped",
    "peak_memory_bytes",
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics.jsonl or details.jsonl in order; [] if there is none.

    A last line that a crash cut is left out.
    """
    if not path.exists():
        return []
    complete = path.read_text().split("\n")[:-1]  # the text after the last newline is empty or cut
    rows = []
    for line in complete:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # a torn write after a power failure; all lines after it are void as well
            break
    return rows


def finite(value: Any) -> Any:
    """Returns the value, or None for a float that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


class _Lines:
    """Appends to a file of lines, from which those of later steps than `step` are dropped first."""

    def __init__(self, path: Path, step: int):
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_atomically(path, "".join(map(_line, kept)))
        self._file = path.open("a")

    def append(self, row: dict[str, Any]) -> None:
        """Writes one line at once."""
        self._file.write(_line(row))
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Metrics:
    """The record of a run: its files, and the trackers that get a copy."""

    def __init__(self, folder: Path, step: int, trackers: Sequence[Tracker] = ()):
        """Opens the record of the run in `folder` after `step` updates. Lines of later steps are dropped."""
        self._trackers = trackers
        self._metrics, self._details_path = _Lines(folder / "metrics.jsonl", step), folder / "details.jsonl"
        self._details = _Lines(self._details_path, step) if self._details_path.exists() else None
        for tracker in trackers:
            if tracker.replays:
                _replay(tracker, folder, step)

    def write(self, **values: Any) -> dict[str, Any]:
        """Writes one line at once and returns it. Fields that are not given are null."""
        unknown = values.keys() - set(FIELDS)
        if unknown:
            raise TypeError(f"metrics.jsonl has no field {min(unknown)!r}")
        row = {name: finite(values.get(name)) for name in FIELDS}
        self._metrics.append(row)
        for tracker in self._trackers:
            tracker.scalars(row["step"], _tagged(row))
        return row

    def details(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line of what an engine's `details` measured. The first one makes the file."""
        row = {"step": step} | {name: finite(value) for name, value in values.items()}
        self._details = self._details or _Lines(self._details_path, step)
        self._details.append(row)
        for tracker in self._trackers:
            tracker.scalars(step, _tagged_details(row))

    def sample(self, step: int, text: str) -> None:
        """Tells the trackers what the model wrote."""
        for tracker in self._trackers:
            tracker.text(step, "sample", text)

    def sync(self) -> None:
        """Waits until every line is on the disk."""
        for lines in filter(None, (self._metrics, self._details)):
            lines.sync()

    def close(self) -> None:
        for part in filter(None, (self._metrics, self._details, *self._trackers)):
            part.close()


def _tagged(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line of metrics.jsonl by tag: "loss/train", "loss/eval", "lr/train", ..."""
    return {f"{name}/{row['split']}": row[name] for name in FIELDS[2:] if row.get(name) is not None}


def _tagged_details(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of a line of details.jsonl by tag: "details/activation_rms/layers.3.mlp", ..."""
    return {f"details/{name}": value for name, value in row.items() if name != "step" and value is not None}


def _replay(tracker: Tracker, folder: Path, step: int) -> None:
    """Tells a tracker everything that a run's files say of its first `step` updates, in order."""
    steps_of = lambda name: ((row["step"], row) for row in read_metrics(folder / name))  # noqa: E731
    told = [(at, partial(tracker.scalars, at, _tagged(row))) for at, row in steps_of("metrics.jsonl")]
    told += [(at, partial(tracker.scalars, at, _tagged_details(row))) for at, row in steps_of("details.jsonl")]
    told += [(at, partial(tracker.text, at, "sample", text)) for at, text in read_samples(folder) if at <= step]
    for _, tell in sorted(told, key=lambda entry: entry[0]):
        tell()
