"""Climbing many cells, in as many processes as there are cores: compiling takes most of the time."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

from parity.budgets import BUDGETS
from parity.cells import Cell
from parity.ladder import Result, climb, rungs_of

Task = tuple[Cell, str]
"""A cell and a precision."""


def climb_all(tasks: Sequence[Task], rungs: Sequence[int], jobs: int) -> Iterator[list[Result]]:
    """Yields the results of each task, in their order. An exception inside a cell is a failed result, not an end."""
    pin_environment()
    work = partial(_climb_task, rungs=tuple(rungs))
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(work, tasks)
        return
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), initializer=_start)
    try:
        yield from pool.map(work, tasks)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def pin_environment() -> None:
    """Keeps JAX on the CPU and on one thread. Before anything imports jax."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker without a traceback of its own


def _climb_task(task: Task, rungs: tuple[int, ...]) -> list[Result]:
    from parity.pair import pin_threads

    pin_threads()
    logging.getLogger().setLevel(logging.ERROR)  # what a kernel falls back to is no news in the middle of a table
    cell, precision = task
    results: list[Result] = []
    try:
        for result in climb(cell, precision, rungs):
            results.append(result)
    except Exception as error:
        rung = rungs_of(cell, precision, rungs)[len(results)]
        results.append(_broken(cell, precision, rung, error))
    return results


def _broken(cell: Cell, precision: str, rung: int, error: Any) -> Result:
    text = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"
    return Result(cell.name, precision, rung, float("inf"), BUDGETS[precision][rung], text, 0.0)
