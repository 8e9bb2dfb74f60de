"""Reads the record of a run, `metrics.jsonl` and `details.jsonl`: a damaged line never hides the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from slm_core.errors import UserError
from slm_core.json_files import read_line
from slm_core.logging import say_once
from slm_core.manifest import Files

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


Row = dict[str, int | float | str | None]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics.jsonl or details.jsonl in order; [] if there is none.

    A line that cannot be read is left out with a warning; a last line that a crash cut, without one.
    """
    good, bad = read_lines(path)
    if bad:
        say_once(f"{path}: {_described(bad)} left out; the other {len(good)} are kept")
    return [row for row, _ in good]


def read_lines(path: Path) -> tuple[list[tuple[dict[str, Any], bytes]], dict[int, str]]:
    """Reads a metrics.jsonl or details.jsonl.

    Returns:
      (row, its text) of each line that holds one, in order; and {line number: reason} of the others.

    Raises:
      UserError: the file cannot be read.
    """
    good, bad = [], {}
    complete = _bytes(path).split(b"\n")[:-1]  # the text after the last newline is empty or cut
    for number, line in enumerate(complete, 1):
        try:
            good.append((_row(line, path.name), line + b"\n"))
        except ValueError as error:
            bad[number] = str(error)
    return good, bad


def _row(line: bytes, name: str) -> dict[str, Any]:
    """Reads one line. Raises ValueError with the reason if it is not one of that file."""
    row = read_line(line, Row)
    if type(row.get("step")) is not int:
        raise ValueError("it has no step")
    if name == "metrics.jsonl" and (row.keys() != set(FIELDS) or row["split"] not in ("train", "eval")):
        raise ValueError("its fields are not those of metrics.jsonl")
    if any(isinstance(value, str) for field, value in row.items() if field != "split"):
        raise ValueError("a value is a text")
    return row


def _described(bad: Mapping[int, str]) -> str:
    number, why = next(iter(bad.items()))
    return f"line {number} ({why})" + (f" and {len(bad) - 1} more are" if len(bad) > 1 else " is")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); move it away") from None


def record_damage(folder: Path, lines: Files) -> list[str]:
    """Compares the record of a run with what a checkpoint says of it.

    Args:
      lines: {file: size and checksum of its lines up to the checkpoint}.

    Returns:
      What is wrong, one text per file.
    """
    wrong = []
    for name, entry in lines.items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} {'is not a file' if path.exists() else 'is missing'}, though the run has steps")
            continue
        text = _bytes(path)
        if len(text) < entry.bytes:
            why = f"is cut: {len(text)} bytes instead of {entry.bytes}"
        elif xxhash.xxh3_64_hexdigest(text[: entry.bytes]) != entry.xxh3:
            why = "has changed since it was saved"
        else:
            continue
        good, bad = read_lines(path)
        wrong.append(f"{name} {why}; {_described(bad) + ' left out, ' if bad else ''}{len(good)} lines can be read")
    return wrong


def warn_of_damage(folder: Path, lines: Files) -> None:
    """Warns if the record of a run is not as its checkpoint left it."""
    for wrong in record_damage(folder, lines):
        say_once(f"{folder}: {wrong}; training goes on from what is left of it")
