"""Writes `metrics.jsonl`, the record of a run, and the same numbers as TensorBoard events.

Each line is one JSON object with exactly the fields of `FIELDS`. A value is null if it does not apply to the line, or
if it is not finite (JSON has no NaN). The file is the truth: a resumed run cuts it back to the checkpoint's step, and
continues it as if nothing had happened.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from slm_core.files import write_atomically

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
    """Reads the lines of a metrics.jsonl in order; [] if there is none. A last line that a crash cut is left out."""
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


class Metrics:
    """Appends to a run's metrics.jsonl and TensorBoard folder."""

    def __init__(self, folder: Path, step: int, tensorboard: bool):
        """Opens the record of the run in `folder` after `step` updates. Lines of later steps are dropped."""
        path = folder / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        write_atomically(path, "".join(map(_line, kept)))
        self._file = path.open("a")
        self._events = _Events(folder / "tensorboard", step) if tensorboard else None

    def write(self, **values: Any) -> dict[str, Any]:
        """Writes one line at once and returns it. Fields that are not given are null."""
        unknown = values.keys() - set(FIELDS)
        if unknown:
            raise TypeError(f"metrics.jsonl has no field {min(unknown)!r}")
        row = {name: finite(values.get(name)) for name in FIELDS}
        self._file.write(_line(row))
        self._file.flush()
        if self._events:
            self._events.write(row)
        return row

    def sync(self) -> None:
        """Waits until every line is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        if self._events:
            self._events.close()


class _Events:
    """Writes one TensorBoard event file, with scalars named `loss/train`, `loss/eval`, `lr/train`, ...

    It needs the record format of the `tensorboard` package alone: no framework and no writer thread.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        events: Any = event_pb2  # protobuf makes the messages of these modules at import, unseen by a type checker
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        folder.mkdir(exist_ok=True)
        file = (folder / f"events.out.tfevents.{time.time_ns() // 10**9}.{os.getpid()}.{step}").open("ab")
        self._writer = RecordWriter(file)
        self._put(file_version="brain.Event:2")
        # A session that starts at a step makes TensorBoard drop that step and later ones of older files.
        self._put(step=step + 1, session_log=events.SessionLog(status=events.SessionLog.START))

    def _put(self, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()

    def write(self, row: dict[str, Any]) -> None:
        names = [name for name in FIELDS[2:] if row[name] is not None]
        values = [self._summary.Value(tag=f"{name}/{row['split']}", simple_value=row[name]) for name in names]
        self._put(step=row["step"], summary=self._summary(value=values))

    def close(self) -> None:
        self._writer.close()
