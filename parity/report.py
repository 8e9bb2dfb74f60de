"""The ladder as a table, while it is climbed, and as JSON."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parity.budgets import BUDGETS, METRICS, RUNGS
from parity.ladder import Result
from slm_core.files import write_atomically

NAME, PRECISION, COLUMN = 25, 9, 11


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
            budgets = "".join(_number(BUDGETS[precision].get(rung)).ljust(COLUMN) for rung in self.rungs)
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
    text = f"{_number(result.error)} {'ok' if result.passed else 'FAIL'}".ljust(COLUMN)
    return text if result.passed else f"[red]{text}[/]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-").replace("e+00", "")


def write_json(path: Path, results: list[Result]) -> None:
    """Writes every result with its budget and metric, and the versions that gave them."""
    from slm_core.provenance import versions

    rows: list[dict[str, Any]] = [
        {
            "cell": r.cell, "precision": r.precision, "rung": r.rung, "name": RUNGS[r.rung], "passed": r.passed,
            "error": r.error if r.error != float("inf") else None, "budget": r.budget, "where": r.where,
            "seconds": round(r.seconds, 3),
        }
        for r in results
    ]  # fmt: skip
    passed = all(result.passed for result in results)
    content = {"passed": passed, "versions": versions(), "metrics": METRICS, "results": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")
