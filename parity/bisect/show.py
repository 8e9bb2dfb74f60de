"""Prints a bisection: one line per stage, then the first divergence and the tensors around it."""

import sys
import time
from collections.abc import Iterable, Iterator

from parity.bisect.divergence import Agreement, Divergence
from parity.bisect.models import Traceable
from parity.report import number
from parity.suite import Result

STAGE, LABEL = 10, 10


class Report:
    """Prints the comparison of two models, in colour on a terminal."""

    def __init__(self, left: Traceable, right: Traceable, about: str):
        from rich.console import Console

        self.left, self.right = left, right
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        self._print(f"[bold]{_escaped(left.name)} against {_escaped(right.name)}[/]: {_escaped(about)}")

    def follow(self, stages: Iterable[tuple[str, Agreement]]) -> Divergence | None:
        """Prints each stage as it ends, and at last that nothing differs. Returns the divergence, if any."""
        total, worst, where = 0, 0.0, ""
        for name, agreement, seconds in self._timed(stages):
            if agreement.divergence:
                self._print(
                    f"{name.ljust(STAGE)}[red]differs[/] at tensor {agreement.divergence.position} of {agreement.total}"
                )
                return agreement.divergence
            line = f"{agreement.total} tensors agree, worst {number(agreement.worst)}"
            self._print(f"{name.ljust(STAGE)}{line.ljust(40)}[dim]{seconds:.1f} s[/]")
            total += agreement.total
            if agreement.worst > worst:
                worst, where = agreement.worst, f"{agreement.where} ({name})"
        place = f" at {_escaped(where)}" if where else ""
        self._print(f"[green]no divergence[/]: {total:,} tensors agree, worst {number(worst)}{place}")
        return None

    def conclude(self, divergence: Divergence, checks: list[Result]) -> None:
        """Prints a divergence.

        Args:
          checks: results of these models.
        """
        shape = ", ".join(map(str, divergence.shape))
        code = [model.code(divergence.module) for model in (self.left, self.right)]
        rows = {
            "stage": divergence.stage,
            "module": f"[bold red]{_escaped(divergence.module)}[/]",
            "code": _escaped(" · ".join(dict.fromkeys(filter(None, code)))),
            "tensor": _escaped(f"{divergence.tensor} [{shape}]"),
            "error": f"{divergence.error:.1e}, tolerance {divergence.tolerance:.0e}",
            "differs": _escaped(divergence.detail),
            "before": _escaped("; ".join(divergence.before)),
            "next": _escaped("; ".join(divergence.after)),
            "checks": _checks(checks),
        }
        self._print("[red]first divergence[/]")
        for label, text in rows.items():
            if text:
                self._print(f"  {label.ljust(LABEL)}{text}")

    def _timed(self, stages: Iterable[tuple[str, Agreement]]) -> Iterator[tuple[str, Agreement, float]]:
        with self.console.status("comparing"):
            start = time.perf_counter()
            for name, agreement in stages:
                yield name, agreement, time.perf_counter() - start
                start = time.perf_counter()

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def _checks(results: list[Result]) -> str:
    passed = [result.check for result in results if result.passed]
    failed = [result.check for result in results if not result.passed]
    return f"pass: {', '.join(passed) or 'none'}; fail: {', '.join(failed) or 'none'}" if results else ""


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
