"""Which layers go together: groups that are recomputed at once, and layers that repeat, which one scan can run."""

from collections.abc import Sequence
from typing import Any


def group_size(n_layers: int) -> int:
    """Returns how many layers in a row make a group under memory.remat=full; the last group may be smaller."""
    return max(1, round(n_layers**0.5))


def repetition(kinds: Sequence[Any]) -> tuple[int, int, int]:
    """Returns (start, period, repeats) of the most layers in a row that repeat, with the shortest period; (0, 0, 0):
    none do.

    Args:
      kinds: one value a layer; layers of equal values are alike.
    """
    best = (0, 0, 0)
    for period in range(1, len(kinds) // 2 + 1):
        for start in range(len(kinds) - 2 * period + 1):
            stop = start + period
            while stop < len(kinds) and kinds[stop] == kinds[stop - period]:
                stop += 1
            repeats = (stop - start) // period
            if (repeats - 1) * period > max(best[2] - 1, 0) * best[1]:
                best = (start, period, repeats)
    return best
