"""Times work in rounds."""

import time
from collections.abc import Callable, Sequence
from statistics import median


def time_of(work: Callable[[], object]) -> float:
    """Measures how long work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(rounds: Sequence[float], sign: str = "") -> str:
    """Shows a ratio: the median of the rounds, and their range.

    Args:
      sign: "+" shows the sign of what is added.
    """
    middle, least, most = (f"{x:{sign}.1%}" for x in (median(rounds), min(rounds), max(rounds)))
    return f"{middle} (rounds from {least} to {most})"
