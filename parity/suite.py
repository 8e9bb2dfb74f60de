"""Runs the checks of a case in one precision."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.cases import Case
from parity.checks import CHECKS
from parity.tolerances import TOLERANCES

if TYPE_CHECKING:
    from parity.pair import Pair


@dataclass(frozen=True)
class Result:
    """One check of one case.

    Args:
      case, precision, check: names.
      error: the worst error.
      tolerance: the largest error that passes.
      where: the tensor or step of the worst error, or the exception that ended the check.
      seconds: wall time.
    """

    case: str
    precision: str
    check: str
    error: float
    tolerance: float
    where: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        sign = "<=" if self.passed else ">"
        place = f"at {self.where or 'nothing'}"
        return f"{self.case} [{self.precision}] {self.check}: {self.error:.1e} {sign} {self.tolerance:.0e} {place}"


def checks_of(case: Case, precision: str, chosen: Iterable[str] = tuple(CHECKS)) -> list[str]:
    """Returns those of the chosen checks that a case runs in a precision, in the order of CHECKS."""
    names = set(case.checks) & set(chosen) if precision in case.precisions else set()
    return [name for name in CHECKS if name in names and name in TOLERANCES[precision]]


def run_case(case: Case, precision: str, chosen: Iterable[str] = tuple(CHECKS)) -> Iterator[Result]:
    """Builds both twins and yields the result of each check. The engines are gone when it ends."""
    from parity.pair import Pair, release

    checks = checks_of(case, precision, chosen)
    if not checks:
        return
    pair = Pair(case, precision)
    yield from measure(pair, checks)
    del pair
    release()


def measure(pair: "Pair", checks: Iterable[str]) -> Iterator[Result]:
    """Yields the result of each check of a pair."""
    for name in checks:
        start = time.perf_counter()
        error, where = CHECKS[name].measure(pair)
        tolerance = pair.case.tolerances.get((name, pair.precision), TOLERANCES[pair.precision][name])
        seconds = time.perf_counter() - start
        yield Result(pair.case.name, pair.precision, name, error, tolerance, where, seconds)
