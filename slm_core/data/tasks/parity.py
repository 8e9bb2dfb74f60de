"""Parity: say whether a string of bits has an odd number of ones (Hahn 2020, https://arxiv.org/abs/1906.06755).

    1 0 1 1 = 1 0 0 1 0 = 1
              ^           ^ the answers, with 4 items

A question has `items` bits, and as many questions come as fit. Every bit counts: whoever misses one can only guess.
Hahn proves that the influence of one bit on a transformer of fixed size vanishes as strings grow.
"""

from collections.abc import Iterator

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, filled

EQUALS, ZERO = 3, 1
"""The ids of "=" and of the bit 0."""


def words(options: Options) -> list[str]:
    return [BLANK, "0", "1", "="]


def least(options: Options) -> Least:
    return Least(length=options.items + 2)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    return filled(_questions(rng, options), options.length)


def _questions(rng: np.random.Generator, options: Options) -> Iterator[tuple[int, bool]]:
    for bits in rng.integers(2, size=(options.length // (options.items + 2), options.items)):
        yield from ((ZERO + int(bit), False) for bit in bits)
        yield EQUALS, False
        yield ZERO + int(bits.sum() % 2), True
