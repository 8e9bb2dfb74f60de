"""Measures one attention call, forward and backward: the time and memory of each kernel of each twin, by context.

Every case has a process of its own. For time, the cases of one context take turns: a disturbance of the machine
disturbs all of them. Medians over the turns are reported. For memory, each process makes one call.
"""

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from slm_core.errors import UserError
from slm_core.studies.machine import process_peak_bytes
from slm_core.studies.tables import markdown_table

TURN_S = 0.2
"""A turn lasts about this long: shorter calls are repeated."""
MEASURES = {"ms": (1e3, "{:,.1f} ms"), "MB": (1e-6, "{:,.1f} MB")}
"""{unit: (factor from seconds or bytes, format)}."""

Make = Callable[["Case"], Callable[[], object]]
"""Prepares a case. Returns a function that makes one call, forward and backward, and waits until all is computed."""


@dataclass(frozen=True)
class Case:
    """A causal attention call in float32."""

    twin: str
    kernel: str
    context: int
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    softcap: float

    def score_bytes(self) -> int:
        """Returns the size of all scores in float32."""
        return 4 * self.batch * self.heads * self.context**2


@dataclass
class Result:
    """The measurements of a case: one of `values` per turn, in seconds or bytes. `skipped` says why there are none."""

    case: Case
    values: list[float]
    skipped: str = ""


def times(makes: dict[str, Make], cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> list[Result]:
    """Measures seconds per call. The cases of each context take turns, `rounds` each."""
    results = []
    for context in dict.fromkeys(case.context for case in cases):
        same_context = [_result(case) for case in cases if case.context == context]
        _take_turns(makes, [result for result in same_context if not result.skipped], rounds)
        for result in same_context:
            say(_line(result, "ms"))
        results += same_context
    return results


def memory(makes: dict[str, Make], cases: Sequence[Case], say: Callable[[str], None]) -> list[Result]:
    """Measures the peak of resident memory in a call, minus the memory of the process before it, inputs included."""
    results = [_result(case) for case in cases]
    for result in results:
        if not result.skipped:
            with _process(makes, result.case) as process:
                result.values = [_answer(process, result.case, _peak)]
        say(_line(result, "MB"))
    return results


def table(results: Sequence[Result], unit: str, reference: str = "dot_product") -> str:
    """Writes a Markdown table with one row per context and twin. In brackets: the reference's value over this one."""
    by_case = {(r.case.context, r.case.twin, r.case.kernel): r for r in results}
    kernels = list(dict.fromkeys(kernel for _, _, kernel in by_case))
    rows = []
    for context, twin in dict.fromkeys((context, twin) for context, twin, _ in by_case):
        base = by_case.get((context, twin, reference))
        cells = [_cell(by_case[context, twin, kernel], base, unit) for kernel in kernels]
        rows.append([f"{context:,}", twin, *cells])
    return markdown_table(["context", "twin", *kernels], rows)


def _cell(result: Result, base: Result | None, unit: str) -> str:
    if result.skipped:
        return "skipped"
    factor, form = MEASURES[unit]
    value = form.format(factor * statistics.median(result.values))
    if base is None or base is result or base.skipped or 0 in result.values:  # memory that was there already
        return value
    return f"{value} ({statistics.median(b / x for b, x in zip(base.values, result.values, strict=True)):.2f}x)"


def _line(result: Result, unit: str) -> str:
    case = result.case
    return f"{case.twin}, {case.kernel}, context {case.context:,}: {result.skipped or _cell(result, None, unit)}"


# Memory of a call, as a multiple of the size of its scores: measured at 2,048 tokens, rounded up.
_COPIES = {"dot_product": 6, "fused": 4}


def _result(case: Case) -> Result:
    need, free = _COPIES.get(case.kernel, 0) * case.score_bytes(), _free_bytes()
    if need <= free / 2:
        return Result(case, [])
    return Result(case, [], f"skipped: it may need {need / 1e9:.1f} GB, over half of the {free / 1e9:.1f} GB free")


def _free_bytes() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf


def _take_turns(makes: dict[str, Make], results: Sequence[Result], rounds: int) -> None:
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(makes, result.case)) for result in results]
        calls = []
        for process, result in zip(processes, results, strict=True):
            _answer(process, result.case, _seconds, 1)
            calls.append(math.ceil(TURN_S / _answer(process, result.case, _seconds, 1)))
        for _ in range(rounds):
            for process, result, count in zip(processes, results, calls, strict=True):
                result.values.append(_answer(process, result.case, _seconds, count))


# In the process of a case: its prepared call.
_call: Callable[[], object]


def _process(makes: dict[str, Make], case: Case) -> Executor:
    # Spawned, not forked: a fork would inherit the threads and settings of this process.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_prepare, initargs=(makes[case.twin], case))


def _answer(process: Executor, case: Case, question: Callable[..., float], *arguments: int) -> float:
    try:
        return process.submit(question, *arguments).result()
    except BrokenProcessPool:
        name = f"{case.twin}, {case.kernel}, context {case.context}"
        raise UserError(f"{name}: its process ended, as shown above, or out of memory: try shorter contexts") from None


def _prepare(make: Make, case: Case) -> None:
    global _call
    _call = make(case)


def _seconds(calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        _call()
    return (time.perf_counter() - began) / calls


def _peak() -> float:
    """Makes a call, and returns the bytes of resident memory that it adds at its peak."""
    linux = sys.platform == "linux"
    if linux:  # elsewhere the peak cannot be set back, and that of importing and compiling hides part of the call's
        Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS") if linux else process_peak_bytes()
    _call()
    return (_status("VmHWM") if linux else process_peak_bytes()) - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
