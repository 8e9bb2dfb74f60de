"""Runs many cases in as many processes as there are cores, because compiling takes most of the time."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from parity.cases import Case
from parity.suite import Result, checks_of, run_case
from parity.tolerances import TOLERANCES

Task = tuple[Case, str]
"""A case and a precision."""


def run_cases(tasks: Sequence[Task], checks: Sequence[str], jobs: int) -> Iterator[list[Result]]:
    """Yields the results of each task, in their order. An exception inside a case becomes a failed result."""
    pin_environment()
    work = partial(_run_task, checks=tuple(checks))
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(work, tasks)
        return
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), initializer=_start)
    try:
        yield from pool.map(work, tasks)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def pin_environment() -> None:
    """Keeps JAX on the CPU and on one thread. Call it before anything imports jax."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback of its own


def _run_task(task: Task, checks: tuple[str, ...]) -> list[Result]:
    from parity.pair import pin_threads

    pin_threads()
    logging.getLogger().setLevel(logging.ERROR)  # a note about a kernel's fallback would break the table
    case, precision = task
    results: list[Result] = []
    try:
        for result in run_case(case, precision, checks):
            results.append(result)
    except Exception as error:
        results.append(_broken(case, precision, checks_of(case, precision, checks)[len(results)], error))
    return results


def _broken(case: Case, precision: str, check: str, error: Exception) -> Result:
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[-1] if lines else ''}"
    return Result(case.name, precision, check, float("inf"), TOLERANCES[precision][check], text, 0.0)
