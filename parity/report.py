"""The ladder as a table, while it is climbed, as JSON and as Markdown."""

import functools
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity.budgets import BUDGETS, METRICS, RUNGS
from parity.cells import ORDER, PROOFS
from parity.ladder import Result
from slm_core.files import write_atomically
from slm_core.runs.provenance import versions
from slm_core.studies.throughput import cpu_name

NAME, PRECISION, COLUMN = 33, 9, 11


class Table:
    """Prints one line a cell and precision as results arrive; in colour, above a progress bar, on a terminal."""

    def __init__(self, total: int, rungs: Iterable[int], precisions: Iterable[str]):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.rungs = sorted(rungs)
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("climbing", total=total)
        self.precisions = list(precisions)

    def __enter__(self) -> "Table":
        titles = "".join(f"{rung} {RUNGS[rung]}".ljust(COLUMN) for rung in self.rungs)
        self.console.print(f"[bold]{'cell'.ljust(NAME)}{'dtype'.ljust(PRECISION)}{titles}[/]")
        for precision in self.precisions:
            budgets = "".join(number(BUDGETS[precision].get(rung)).ljust(COLUMN) for rung in self.rungs)
            self.console.print(f"[dim]{'budget'.ljust(NAME)}{precision.ljust(PRECISION)}{budgets}[/]")
        self.progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self.progress.stop()

    def add(self, results: list[Result]) -> None:
        """Prints the results of one cell in one precision."""
        by_rung = {result.rung: result for result in results}
        marks = "".join(_mark(by_rung.get(rung)) for rung in self.rungs)
        from rich.markup import escape

        head = f"{results[0].cell[: NAME - 1].ljust(NAME)}{results[0].precision.ljust(PRECISION)}"
        self.console.print(f"{escape(head)}{marks}".rstrip(), soft_wrap=True)
        self.progress.advance(self.task)

    def conclude(self, results: list[Result]) -> None:
        """Prints what failed, or that nothing did."""
        from rich.markup import escape

        failed = [result for result in results if not result.passed]
        for result in failed:
            self.console.print(f"[red]FAIL[/] {escape(str(result))}", soft_wrap=True)
        self.console.print(f"{len(results) - len(failed)} passed, {len(failed)} failed")


def _mark(result: Result | None) -> str:
    if result is None:
        return " " * COLUMN
    text = f"{number(result.error)} {'ok' if result.passed else 'FAIL'}".ljust(COLUMN)
    return text if result.passed else f"[red]{text}[/]"


def number(value: float | None) -> str:
    """Returns an error as the table shows it, with one digit; "" of None."""
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")


def write_json(path: Path, results: list[Result]) -> None:
    """Writes every result with its budget and metric, and what gave them."""
    rows: list[dict[str, Any]] = [
        {
            "cell": r.cell, "precision": r.precision, "rung": r.rung, "name": RUNGS[r.rung], "passed": r.passed,
            "error": r.error if r.error != float("inf") else None, "budget": r.budget, "where": r.where,
            "seconds": round(r.seconds, 3),
        }
        for r in results
    ]  # fmt: skip
    passed = all(result.passed for result in results)
    content = {"passed": passed, **_origin(), "machine": machine(), "metrics": METRICS, "results": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> list[Result]:
    """Returns the results of a file of `write_json`, if the same sources and versions would give them again."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    if any(content.get(key) != value for key, value in _origin().items()):
        return []
    return [
        Result(
            row["cell"], row["precision"], row["rung"], float("inf") if row["error"] is None else row["error"],
            row["budget"], row["where"], row["seconds"],
        )
        for row in content["results"]
    ]  # fmt: skip


@functools.cache
def _origin() -> dict[str, Any]:
    """Returns what a result depends on: the versions of libraries, and a hash of our sources."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for package in ("slm_core", "slm_torch", "slm_flax", "parity", "configs"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return {"versions": versions(), "sources": digest.hexdigest()}


def machine() -> str:
    """Returns the processor and its number of cores."""
    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}"


INTRODUCTION = """# Parity: what was measured

Written by `{command}`, not by hand. A row is one small model, or a preset, built twice from one config.
An entry is the worst error of a rung, in float64 · float32; 0 is bitwise equality.
[numerics.md](numerics.md#tolerances) says what each rung compares, and why float64 is the proof.
`uv run scripts/parity.py --component NAME` measures one component again.

{summary}

{versions}. {machine}; on the CPU.
"""


BISECTIONS = "\n## Bisections\n"
"""Heading of a page's last section, which `scripts/bisections.py` writes."""


def write_markdown(path: Path, page: str) -> None:
    """Writes a page; the section of bisections that stood at its end stays."""
    _, heading, rest = path.read_text().partition(BISECTIONS) if path.is_file() else ("", "", "")
    path.write_text(page + heading + rest)


def markdown(results: list[Result], sections: Mapping[str, str], command: str) -> str:
    """Returns the results as a page: a table for each section.

    Args:
      results: of all cells that were climbed, perhaps not of all there are.
      sections: {name of a cell: its section}.
      command: what made them.
    """
    shown = {
        name: version for name, version in versions().items() if name in ("python", "torch", "jax", "flax", "optax")
    }
    text = INTRODUCTION.format(
        command=command,
        summary=_summary(results),
        versions=", ".join(f"{name} {version}" for name, version in shown.items()),
        machine=machine(),
    )
    for section in ORDER:
        own = [result for result in results if sections.get(result.cell, ORDER[-1]) == section]
        if own:
            text += f"\n## {section[0].upper()}{section[1:]}\n{_section_table(own)}"
    return text


def _summary(results: list[Result]) -> str:
    failed = [result for result in results if not result.passed]
    count = f"{len(results)} measurements of {len({result.cell for result in results})} models, "
    if failed:
        return count + f"**{len(failed)} over budget**:\n\n" + "\n".join(f"- {result}" for result in failed)
    count += "all within their budgets."
    for precision in PROOFS:
        own = [result for result in results if result.precision == precision and result.error]
        if own:
            near = max(own, key=lambda result: result.error / result.budget)
            where = f"{near.cell}, {RUNGS[near.rung]}"
            count += f" Nearest to its budget in {precision}: {near.error:.1e} of {near.budget:.0e} ({where})."
    return count


def _section_table(results: list[Result]) -> str:
    rungs = sorted({result.rung for result in results})
    lines = ["| | " + " | ".join(RUNGS[rung] for rung in rungs) + " |", "|---" * (len(rungs) + 1) + "|"]
    budgets = {(r.precision, r.rung): BUDGETS[r.precision][r.rung] for r in results}
    head = {key: Result("budget", *key, value, value, "", 0.0) for key, value in budgets.items()}
    if any(precision in PROOFS for precision, _ in head):
        lines.append(_row("*budget*", head, rungs))
    for cell in dict.fromkeys(result.cell for result in results):
        by_key = {(result.precision, result.rung): result for result in results if result.cell == cell}
        lines.append(_row(cell, by_key, rungs))
    return "\n".join(lines) + "\n"


def _row(name: str, by_key: Mapping[tuple[str, int], Result], rungs: list[int]) -> str:
    found = {precision for precision, _ in by_key}
    precisions = PROOFS if found & set(PROOFS) else sorted(found)
    entries = []
    for rung in rungs:
        texts = [_entry(by_key.get((precision, rung))) for precision in precisions]
        entries.append(" · ".join(text or "–" for text in texts) if any(texts) else "")
    return f"| {name} | " + " | ".join(entries) + " |"


def _entry(result: Result | None) -> str:
    if result is None:
        return ""
    own = f" (budget {number(result.budget)})" if result.budget != BUDGETS[result.precision][result.rung] else ""
    return (number(result.error) if result.passed else f"**{number(result.error)}**") + own
