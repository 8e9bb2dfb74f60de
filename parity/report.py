"""Shows results: as a table while the suite runs, as JSON and as a Markdown page."""

import functools
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from parity.cases import ORDER, PROOFS
from parity.checks import CHECKS
from parity.sources import hash_of, python_files
from parity.suite import Result
from parity.tolerances import TOLERANCES
from slm_core.errors import UserError
from slm_core.files import write_atomically
from slm_core.json_files import Schema
from slm_core.json_files import read_json as read_schema
from slm_core.runs.provenance import versions
from slm_core.studies.machine import cpu_name

NAME, PRECISION, COLUMN = 33, 9, 11
"""Widths of the table's columns."""


class Table:
    """Prints one line per case and precision as results arrive: on a terminal in colour, above a progress bar."""

    def __init__(self, total: int, checks: Iterable[str], precisions: Iterable[str]):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.checks = [name for name in CHECKS if name in set(checks)]
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("running", total=total)
        self.precisions = list(precisions)

    def __enter__(self) -> "Table":
        for head in _heads(self.checks):
            self.console.print(f"[bold]{head}[/]")
        for precision in self.precisions:
            tolerances = "".join(number(TOLERANCES[precision].get(check)).ljust(COLUMN) for check in self.checks)
            self.console.print(f"[dim]{'tolerance'.ljust(NAME)}{precision.ljust(PRECISION)}{tolerances}[/]")
        self.progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self.progress.stop()

    def add(self, results: list[Result]) -> None:
        """Prints the results of one case in one precision."""
        by_check = {result.check: result for result in results}
        marks = "".join(_mark(by_check.get(check)) for check in self.checks)
        from rich.markup import escape

        head = f"{results[0].case[: NAME - 1].ljust(NAME)}{results[0].precision.ljust(PRECISION)}"
        self.console.print(f"{escape(head)}{marks}".rstrip(), soft_wrap=True)
        self.progress.advance(self.task)

    def conclude(self, results: list[Result]) -> None:
        """Prints each failure, and how many results passed and failed."""
        from rich.markup import escape

        failed = [result for result in results if not result.passed]
        for result in failed:
            self.console.print(f"[red]FAIL[/] {escape(str(result))}", soft_wrap=True)
        self.console.print(f"{len(results) - len(failed)} passed, {len(failed)} failed")


def _heads(checks: list[str]) -> list[str]:
    """Returns the lines of the table's head: a name of two words takes two."""
    words = [name.split("_") for name in checks]
    upper = "".join((names[0] if len(names) > 1 else "").ljust(COLUMN) for names in words)
    lower = "".join(names[-1].ljust(COLUMN) for names in words)
    lines = [" " * (NAME + PRECISION) + upper, "case".ljust(NAME) + "dtype".ljust(PRECISION) + lower]
    return [line.rstrip() for line in lines if line.strip()]


def _mark(result: Result | None) -> str:
    if result is None:
        return " " * COLUMN
    text = f"{number(result.error)} {'ok' if result.passed else 'FAIL'}".ljust(COLUMN)
    return text if result.passed else f"[red]{text}[/]"


def number(value: float | None) -> str:
    """Returns an error as the table shows it, with one digit; "" for None."""
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")


def write_json(path: Path, results: list[Result]) -> None:
    """Writes every result with its tolerance, and the versions, sources and machine that gave it."""
    rows: list[dict[str, Any]] = [
        {
            "case": r.case, "precision": r.precision, "check": r.check, "passed": r.passed,
            "error": r.error if r.error != float("inf") else None, "tolerance": r.tolerance, "where": r.where,
            "seconds": round(r.seconds, 3),
        }
        for r in results
    ]  # fmt: skip
    passed = all(result.passed for result in results)
    metrics = {name: check.metric for name, check in CHECKS.items()}
    content = {"passed": passed, **_origin(), "machine": machine(), "metrics": metrics, "results": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")


class _Row(Schema):
    case: str
    precision: str
    check: str
    passed: bool
    error: float | None
    tolerance: float
    where: str
    seconds: float


class _Report(Schema):
    """The content of a file of `write_json`."""

    passed: bool
    versions: dict[str, str]
    sources: str
    machine: str
    metrics: dict[str, str]
    results: list[_Row]


def read_json(path: Path) -> list[Result]:
    """Reads the results of a file of `write_json`; [] if other sources or versions gave them."""
    try:
        content = read_schema(path, _Report, "")
    except UserError:
        return []
    if {"versions": content.versions, "sources": content.sources} != _origin():
        return []
    return [
        Result(
            row.case, row.precision, row.check, float("inf") if row.error is None else row.error,
            row.tolerance, row.where, row.seconds,
        )
        for row in content.results
    ]  # fmt: skip


@functools.cache
def _origin() -> dict[str, Any]:
    """Collects what a result depends on: the versions of libraries, and a hash of the sources."""
    sources = python_files("slm_core", "slm_torch", "slm_flax", "parity", "configs")
    return {"versions": versions(), "sources": hash_of(sources)}


def machine() -> str:
    """Returns the processor and its number of cores."""
    return f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}"


INTRODUCTION = """# Parity: what was measured

Written by `{command}`, not by hand. A row is a case: one small model, or one preset, built in both twins.
An entry is the worst error of one check, in float64 · float32. A 0 means bitwise equality.
[numerics.md](numerics.md#tolerances) says what each check compares, and why float64 is the proof.
`uv run scripts/check_parity.py --component NAME` measures one component again.

{summary}

{versions}. {machine}; on the CPU.
"""


BISECTIONS = "\n## Bisections\n"
"""Heading of a page's last section, which `scripts/pages/bisections.py` writes."""


def write_markdown(path: Path, page: str) -> None:
    """Writes a page, and keeps the section of bisections at its end."""
    _, heading, rest = path.read_text().partition(BISECTIONS) if path.is_file() else ("", "", "")
    path.write_text(page + heading + rest)


def markdown(results: list[Result], sections: Mapping[str, str], command: str) -> str:
    """Writes the text of the page: a table for each section.

    Args:
      results: of all cases that ran, which may be a part of the suite.
      sections: {name of a case: its section}.
      command: the command that gave the results.
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
        members = [result for result in results if sections.get(result.case, ORDER[-1]) == section]
        if members:
            text += f"\n## {section[0].upper()}{section[1:]}\n{_section_table(members)}"
    return text


def _summary(results: list[Result]) -> str:
    failed = [result for result in results if not result.passed]
    count = f"{len(results)} measurements of {len({result.case for result in results})} cases, "
    if failed:
        return count + f"**{len(failed)} above their tolerance**:\n\n" + "\n".join(f"- {result}" for result in failed)
    count += "all within their tolerances."
    for precision in PROOFS:
        inexact = [result for result in results if result.precision == precision and result.error]
        if inexact:
            near = max(inexact, key=lambda result: result.error / result.tolerance)
            where = f"{near.case}, {CHECKS[near.check].title}"
            count += f" Nearest to its tolerance in {precision}: {near.error:.1e} of {near.tolerance:.0e} ({where})."
    return count


def _section_table(results: list[Result]) -> str:
    ran = {result.check for result in results}
    checks = [name for name in CHECKS if name in ran]
    lines = ["| | " + " | ".join(CHECKS[check].title for check in checks) + " |", "|---" * (len(checks) + 1) + "|"]
    tolerances = {(r.precision, r.check): TOLERANCES[r.precision][r.check] for r in results}
    head = {key: Result("tolerance", *key, value, value, "", 0.0) for key, value in tolerances.items()}
    if any(precision in PROOFS for precision, _ in head):
        lines.append(_row("*tolerance*", head, checks))
    for case in dict.fromkeys(result.case for result in results):
        by_key = {(result.precision, result.check): result for result in results if result.case == case}
        lines.append(_row(case, by_key, checks))
    return "\n".join(lines) + "\n"


def _row(name: str, by_key: Mapping[tuple[str, str], Result], checks: list[str]) -> str:
    ran = {precision for precision, _ in by_key}
    precisions = PROOFS if ran & set(PROOFS) else sorted(ran)
    entries = []
    for check in checks:
        texts = [_entry(by_key.get((precision, check))) for precision in precisions]
        entries.append(" · ".join(text or "–" for text in texts) if any(texts) else "")
    return f"| {name} | " + " | ".join(entries) + " |"


def _entry(result: Result | None) -> str:
    if result is None:
        return ""
    exception = (
        f" (tolerance {number(result.tolerance)})"
        if result.tolerance != TOLERANCES[result.precision][result.check]
        else ""
    )
    return (number(result.error) if result.passed else f"**{number(result.error)}**") + exception
