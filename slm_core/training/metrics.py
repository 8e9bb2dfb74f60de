"""Writes `metrics.jsonl` and `details.jsonl`, the record of a run, and tells the trackers the same.

Each line of `metrics.jsonl` is one JSON object with exactly the fields of `FIELDS`. A value is null if it does not
apply to the line, or if it is not finite (JSON has no NaN). A line of `details.jsonl` has the step and whatever the
engine's `details` measured. The files are the truth: a resumed run cuts them back to the checkpoint's step, and
continues them as if nothing had happened.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from slm_core.files import write_atomically
from slm_core.manifest import FileSum
from slm_core.runs.checkpoints import unused
from slm_core.runs.folder import read_samples
from slm_core.runs.record import FIELDS, read_lines, read_metrics
from slm_core.training.trackers.base import Tracker


def finite(value: Any) -> Any:
    """Returns the value, or None for a float that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


class _Lines:
    """Appends to a file of lines, from which those of later steps than `step` are dropped first.

    If some of its lines cannot be read, the file is kept under another name, and the good ones go on.
    """

    def __init__(self, path: Path, step: int):
        if path.exists() and not path.is_file():
            path.rename(unused(path.with_name(f"damaged-{path.name}")))
        good, bad = read_lines(path)
        if bad:
            shutil.copyfile(path, unused(path.with_name(f"damaged-{path.name}")))
        kept = b"".join(line for row, line in good if row["step"] <= step)
        write_atomically(path, kept.decode())
        self._size, self._digest = len(kept), xxhash.xxh3_64(kept)
        self._file = path.open("ab")

    def append(self, row: dict[str, Any]) -> None:
        """Writes one line at once."""
        line = _line(row).encode()
        self._file.write(line)
        self._file.flush()
        self._size += len(line)
        self._digest.update(line)

    def sum(self) -> FileSum:
        """Returns the size and checksum of all lines."""
        return FileSum(bytes=self._size, xxh3=self._digest.hexdigest())

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

    def sums(self) -> dict[str, FileSum]:
        """Returns the size and checksum of each file, for a checkpoint to vouch for."""
        files = {"metrics.jsonl": self._metrics} | ({"details.jsonl": self._details} if self._details else {})
        return {name: lines.sum() for name, lines in files.items()}

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
