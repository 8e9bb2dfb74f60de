"""Runs a function over items on all cores. Results come in order, and few items are in work at once."""

import collections
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from slm_core.errors import ResumableError


def cores() -> int:
    """Counts the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Maps functions over items in `count` processes, which start at first use; with a count of 1, in this process.

    Processes are spawned, never forked: the caller may have a framework with threads, which a fork would break.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yields `function(item)` for each item in order. A failing item raises its error in its turn."""
        if self.count == 1:
            yield from map(function, items)
            return
        from concurrent.futures.process import BrokenProcessPool

        waiting: collections.deque = collections.deque()
        try:
            for item in items:
                waiting.append(self._submit(function, item))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise ResumableError(
                "data.path: a preparing process was killed (out of memory?); free some memory and run the same command "
                "again to continue"
            ) from None

    def _submit(self, function: Callable[[Any], Any], item: Any):
        if self._pool is None:
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_start)
        return self._pool.submit(function, item)


def _start() -> None:
    """Prepares a worker: it leaves Ctrl-C to its parent, uses one thread, and ends when its parent dies."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker alone

    def watch() -> None:
        with contextlib.suppress(Exception):
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
