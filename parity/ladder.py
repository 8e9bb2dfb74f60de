"""Climbing: a cell, a precision and rungs give results."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from parity.budgets import BUDGETS, RUNGS
from parity.cells import Cell


@dataclass(frozen=True)
class Result:
    """One rung of one cell: `error` against `budget`, and the tensor or step of the worst error."""

    cell: str
    precision: str
    rung: int
    error: float
    budget: float
    where: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.error <= self.budget

    def __str__(self) -> str:
        sign = "<=" if self.passed else ">"
        title = f"{self.cell} [{self.precision}] rung {self.rung} ({RUNGS[self.rung]})"
        return f"{title}: {self.error:.1e} {sign} {self.budget:.0e} at {self.where or 'nothing'}"


def rungs_of(cell: Cell, precision: str, wanted: Iterable[int] = tuple(RUNGS)) -> list[int]:
    """Returns the rungs, of those wanted, that a cell climbs in a precision."""
    own = cell.rungs if precision in cell.precisions else ()
    return [rung for rung in sorted(wanted) if rung in own and rung in BUDGETS[precision]]


def climb(cell: Cell, precision: str, wanted: Iterable[int] = tuple(RUNGS)) -> Iterator[Result]:
    """Builds both twins and yields the result of each rung. The engines are gone when it ends."""
    from parity.pair import Pair, release

    rungs = rungs_of(cell, precision, wanted)
    if not rungs:
        return
    pair = Pair(cell, precision)
    yield from measure(pair, rungs)
    del pair
    release()


def measure(pair, rungs: Iterable[int]) -> Iterator[Result]:
    """Yields the result of each rung of a `parity.pair.Pair`."""
    from parity.rungs import RUNGS as MEASURES

    for rung in rungs:
        start = time.perf_counter()
        error, where = MEASURES[rung](pair)
        table = BUDGETS[pair.precision][rung]
        budget = pair.cell.budgets.get((rung, pair.precision), table)
        seconds = time.perf_counter() - start
        yield Result(pair.cell.name, pair.precision, rung, error, budget, where, seconds)
