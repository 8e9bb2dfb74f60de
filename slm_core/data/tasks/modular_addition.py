"""Modular addition: complete equations of a table of which training sees a part (Power et al. 2022,
https://arxiv.org/abs/2201.02177, who call the late step from memory to the rule "grokking").

    3 + 4 = 2        with 5 symbols
            ^ the answer

`symbols` is the modulus p (Power: 97). Of the p^2 equations, the share `train_fraction` belongs to the train split and
the rest to the validation split; `seed` decides which. A sequence has as many equations as fit, drawn with replacement;
with seq_len 4 it is one, as in the paper.
"""

import functools
from collections.abc import Iterator

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, filled

EQUATION = 5
"""Tokens per equation."""

TABLE = 2**64 - 1
"""Takes the place of the split in the key of the random numbers: both splits belong to one table."""


def words(options: Options) -> list[str]:
    return [BLANK, "+", "=", *map(str, range(options.symbols))]


def least(options: Options) -> Least:
    return Least(length=EQUATION, symbols=2)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    return filled(_equations(rng, options), options.length)


def _equations(rng: np.random.Generator, options: Options) -> Iterator[tuple[int, bool]]:
    own = equations(options)
    for _ in range(options.length // EQUATION):
        a, b = divmod(int(rng.choice(own)), options.symbols)
        tokens = (3 + a, 1, 3 + b, 2, 3 + (a + b) % options.symbols)
        yield from zip(tokens, (False, False, False, False, True), strict=True)


def equations(options: Options) -> np.ndarray:
    """Returns the equations of a split, as a p + b: the first or the last ones of a random order."""
    return _split(options.symbols, options.train_fraction, options.seed)[0 if options.training else 1]


@functools.cache
def _split(modulus: int, train_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, TABLE], np.uint64)))
    order = rng.permutation(modulus**2)
    count = min(max(1, round(train_fraction * len(order))), len(order) - 1)  # neither split is empty
    return order[:count], order[count:]
