"""Groups layers: those that are recomputed together, and those that repeat, which one scan can run."""

from collections.abc import Sequence
from typing import Any, NamedTuple


def group_size(n_layers: int) -> int:
    """Counts the layers in a row that make a group under memory.remat=full; the last group may be smaller."""
    return max(1, round(n_layers**0.5))


class Repetition(NamedTuple):
    """Layers start, start + 1, ...: `repeats` times the same `period` layers. Without repeats no layers repeat."""

    start: int = 0
    period: int = 0
    repeats: int = 0


def repetition(kinds: Sequence[Any]) -> Repetition:
    """Finds the most layers in a row that repeat, with the shortest period.

    Args:
      kinds: one value per layer; layers with equal values are alike.
    """
    best = Repetition()
    for period in range(1, len(kinds) // 2 + 1):
        for start in range(len(kinds) - 2 * period + 1):
            stop = start + period
            while stop < len(kinds) and kinds[stop] == kinds[stop - period]:
                stop += 1
            repeats = (stop - start) // period
            if (repeats - 1) * period > max(best.repeats - 1, 0) * best.period:
                best = Repetition(start, period, repeats)
    return best
