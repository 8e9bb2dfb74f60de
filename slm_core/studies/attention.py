"""One attention call, forward and backward, measured: time and memory of each kernel of each twin, by context.

Every case has a process of its own. For time, the cases of one context take turns, so that what disturbs the machine
disturbs all of them, and medians over the turns are reported. For memory, each process makes one call.
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
from slm_core.studies.throughput import markdown_table, process_peak_bytes

TURN_S = 0.2
"""A turn repeats calls shorter than this."""
MEASURES = {"ms": (1e3, "{:,.1f} ms"), "MB": (1e-6, "{:,.1f} MB")}
"""{unit: (factor from seconds or bytes, format)}."""

Make = Callable[["Case"], Callable[[], object]]
"""Prepares a case; what it returns makes one call, forward and backward, and comes back when all is computed."""


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
    """`values` has one number a turn, seconds or bytes; none, and `skipped` says why, if it was not measured."""

    case: Case
    values: list[float]
    skipped: str = ""


def times(makes: dict[str, Make], cases: Sequence[Case], rounds: int, say: Callable[[str], None]) -> list[Result]:
    """Measures seconds a call; the cases of each context take turns, `rounds` each."""
    results = []
    for context in dict.fromkeys(case.context for case in cases):
        ours = [_result(case) for case in cases if case.context == context]
        _take_turns(makes, [result for result in ours if not result.skipped], rounds)
        for result in ours:
            say(_line(result, "ms"))
        results += ours
    return results


def memory(makes: dict[str, Make], cases: Sequence[Case], say: Callable[[str], None]) -> list[Result]:
    """Measures the peak of resident memory in a call, above what the process had before it, inputs included."""
    results = [_result(case) for case in cases]
    for result in results:
        if not result.skipped:
            with _process(makes, result.case) as process:
                result.values = [_answer(process, result.case, _peak)]
        say(_line(result, "MB"))
    return results


def table(results: Sequence[Result], unit: str, reference: str = "dot_product") -> str:
    """Returns a Markdown table, one row a context and twin; in brackets how many times less than the reference."""
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


# What a call needs at once, as a multiple of all its scores: measured at 2,048 tokens, rounded up.
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


# The measured side: a process that holds one prepared case.
_call: Callable[[], object]


def _process(makes: dict[str, Make], case: Case) -> Executor:
    # Spawned, not forked: a fork would inherit whatever threads and settings this process has.
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
    """Returns how many bytes of resident memory a call adds at its peak."""
    linux = sys.platform == "linux"
    if linux:  # elsewhere the peak cannot be set back: what importing and compiling took hides as much of the call's
        Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS") if linux else process_peak_bytes()
    _call()
    return (_status("VmHWM") if linux else process_peak_bytes()) - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
