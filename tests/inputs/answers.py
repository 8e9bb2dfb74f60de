"""What the property tests of bad input share: how often they run per tier, and what counts as an answer."""

import contextlib
import faulthandler
import resource
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from slm_core.cli.command_line import one_line
from slm_core.errors import UserError

MUCH = 500_000_000
"""Bytes by which no input may make the process grow before it is refused."""

LONG = 20
"""Seconds of the CPU that no input may take."""

_CLEAR = Path("/proc/self/clear_refs")


def tiers(default: int, slow: int, exhaustive: int) -> pytest.MarkDecorator:
    """Parametrizes a test with the number of its cases in each tier."""
    return pytest.mark.parametrize(
        "count",
        [
            default,
            pytest.param(slow, marks=pytest.mark.slow),
            pytest.param(exhaustive, marks=pytest.mark.exhaustive),
        ],
    )


def for_all(count: int, check: Callable[..., None], **strategies: Any) -> None:
    """Runs a check with `count` random arguments, the same ones every time."""
    chosen = settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    chosen(given(**strategies)(check))()


def answer(call: Callable[[], Any]) -> str:
    """Returns "" if a call succeeds, or the one line of its UserError. Any other exception fails the test.

    So do more than MUCH bytes, counted by Python and by the system, and a call that does not end.
    """
    tracemalloc.start()
    before = _resident(peak=False)
    try:
        with not_for_ever():
            call()
        said = ""
    except UserError as error:
        said = one_line(error)
        assert said and said.isprintable() and len(said) < 8000, repr(said)
    finally:
        peak = max(tracemalloc.get_traced_memory()[1], _resident(peak=True) - before)
        tracemalloc.stop()
    assert peak < MUCH, f"{peak / 1e6:.0f} MB"
    return said


@contextlib.contextmanager
def not_for_ever() -> Iterator[None]:
    """Fails a test that takes LONG seconds of the CPU, on however busy a machine; ends one that waits for ever."""

    def fail(*_: object) -> None:
        raise AssertionError(f"it took {LONG} s of the CPU")

    before = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, LONG)
    faulthandler.dump_traceback_later(600, exit=True)  # a loop in a library's C or Rust hears no signal
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        faulthandler.cancel_dump_traceback_later()


def _resident(peak: bool) -> int:
    """Returns the bytes of memory that this process has, or its most since the last call with `peak=False`."""
    if not _CLEAR.exists():  # not Linux: the peak of the whole life of the process
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not peak:
        _CLEAR.write_text("5")  # sets the peak back to what there is
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
