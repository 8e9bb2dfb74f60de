"""Writes docs/crashes.md: where kills fell, that every command ended as an undisturbed one, and what faults do."""

import collections
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file
from slm_core.errors import UserError
from slm_core.studies.tables import markdown_table

DESCRIPTION = """Kills the commands of tests/crashes/commands.py at random, in both twins, and does the faults of
tests/crashes/machine.py. Exits with 1 if a command does not end as an undisturbed one. Takes about half an hour."""

COMMAND = "uv run scripts/pages/crashes.py"
ROOT = Path(__file__).resolve().parents[2]
TWINS = {"torch": "PyTorch", "flax": "Flax"}
FLAGS = [
    Flag("markdown", str, "docs/crashes.md", "page to write"),
    Flag("kills", int, 500, "kills per twin"),
    Flag("seed", int, 1, "seed of the kills"),
    Flag("rows", str, "", "file of what `python -m tests.crashes.campaign` and `.machine` printed; empty: run them"),
]

HEAD = f"""# Crashes

This page is written by `{COMMAND}`.

A process can be killed at any moment. The same command then goes on, and ends as if nothing had happened. Kills show
it: a command is killed up to 4 times, goes on each time, and then runs to its end. All its files must then be those of
a command that nobody killed, byte for byte: the checkpoints with the final state, the losses, the samples, the prepared
text, the imported and exported weights. Times and memory may differ. No file may be left over, `verify.py` must find
all whole, and nothing may be said to be damaged. After each kill, every checkpoint with a step's name must be whole.

Half of the kills fall before a random file operation, by SIGKILL. The others fall at a random time, by a signal that
ends the process just so: nothing of Python's cleanup runs. A first step is an update before the first line of metrics.

What is not shown here: a loss of power. Files are synced before they get their names; no test pulls the plug.
"""


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    target = output_file("markdown", flags["markdown"], [".md"])
    if flags["kills"] < 1:
        raise UserError(f"--kills={flags['kills']}: must be at least 1")
    rows = _read(flags["rows"]) if flags["rows"] else list(_observe(flags["kills"], flags["seed"]))
    kills, faults = [row for row in rows if "place" in row], [row for row in rows if "fault" in row]
    wrong = [row for row in (*kills, *faults) if row["wrong"]]
    lines = [HEAD.strip(), "", *_page(kills, faults)]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {target}, {len(kills)} kills, {len(faults)} faults")
    for row in wrong:
        print(f"wrong: {row}")
    if wrong:
        raise SystemExit(1)


def _read(file: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in Path(file).read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"--rows={file}: cannot be read ({error}); give a file of lines of JSON") from None


def _observe(kills: int, seed: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for twin in TWINS:
            yield from _rows("campaign", twin, str(kills), str(seed), str(Path(folder, twin)))
        for twin in (*TWINS, "core"):
            yield from _rows("machine", twin, str(Path(folder, f"{twin}-faults")))


def _rows(module: str, *words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", f"tests.crashes.{module}", *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise UserError(f"tests.crashes.{module} failed for {words[0]}: see above")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _page(kills: list[dict[str, Any]], faults: list[dict[str, Any]]) -> Iterator[str]:
    counts = [sum(row["twin"] == twin for row in kills) for twin in TWINS]
    wrong = sum(bool(row["wrong"]) for row in kills)
    yield f"{counts[0]} kills in PyTorch and {counts[1]} in Flax: {wrong or 'none'} ended otherwise."
    yield from ("", "## Where the kills fell", "")
    yield _table("phase", kills, lambda row: row["place"]["phase"])
    yield from ("", "Which command was killed:", "")
    yield _table("command", kills, lambda row: row["command"])
    yield from ("", "Before which file operation, of the kills that fell before one:", "")
    by_operation = [row for row in kills if row["place"]["operation"]]
    yield _table("operation", by_operation, lambda row: row["place"]["operation"])
    yield from ("", "## Faults of the machine", "", _FAULTS.strip(), "")
    broken, kinds = sum(bool(row["wrong"]) for row in faults), len({row["fault"] for row in faults})
    yield f"{len(faults)} commands with {kinds} faults: {broken or 'none'} ended otherwise."
    yield ""
    yield markdown_table(("fault", "command", "what is reported", "what is left"), list(_fault_rows(faults)))


_FAULTS = """
Each fault is done to a training run, and if it can be, to preparing, importing and exporting. What is reported must be
nothing, a warning, or one error with exit code 2, never a traceback. Too little memory may also end the process inside
a library. Then every checkpoint must be whole. Then the fault goes away, and the same command must end as an
undisturbed one. A fault that depends on a size or a moment is done with several.
"""


def _table(title: str, rows: list[dict[str, Any]], key: Any) -> str:
    counted = {twin: collections.Counter(key(row) for row in rows if row["twin"] == twin) for twin in TWINS}
    names = sorted(set().union(*counted.values()))
    cells = [(name, *(str(counted[twin][name]) for twin in TWINS)) for name in names]
    return markdown_table((title, *TWINS.values()), cells)


def _fault_rows(faults: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    merged: dict[tuple[str, str, str], list[str]] = {}
    for row in faults:
        merged.setdefault((row["fault"], row["reported"] or "nothing", row["left"]), []).append(_command(row))
    for (fault, reported, left), commands in sorted(merged.items(), key=lambda item: _order(faults, item[0][0])):
        yield fault, ", ".join(dict.fromkeys(commands)), reported.replace("|", r"\|"), left


def _command(row: dict[str, Any]) -> str:
    return f"{row['command']} ({TWINS[row['twin']]})" if row["twin"] in TWINS else row["command"]


def _order(faults: list[dict[str, Any]], fault: str) -> int:
    return next(number for number, row in enumerate(faults) if row["fault"] == fault)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
