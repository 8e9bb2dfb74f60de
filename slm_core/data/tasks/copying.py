"""Copying: say a string again after a delay (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016,
https://arxiv.org/abs/1511.06464, section 4.1).

    s3 s1 s4 _ _ _ _ > s3 s1 s4
                       ^^ ^^ ^^ the answers

`items` symbols are drawn with replacement. Blanks follow, then the mark ">". The answers are the symbols in their
order.
"""

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, numbered

MARK, FIRST = 1, 2
"""The ids of the mark and of the first symbol."""


def words(options: Options) -> list[str]:
    return [BLANK, ">", *numbered("s", options.symbols)]


def least(options: Options) -> Least:
    return Least(length=2 * options.items + 1)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    return copied(rng, options, np.arange(options.items))


def copied(rng: np.random.Generator, options: Options, places: np.ndarray) -> Sequence:
    """Makes a sequence whose symbols stand at `places` before the mark, int [items], in their order."""
    items = rng.integers(FIRST, FIRST + options.symbols, options.items)
    tokens, answers = np.zeros(options.length, np.int64), np.zeros(options.length, bool)
    tokens[places] = items
    tokens[-options.items - 1] = MARK
    tokens[-options.items :], answers[-options.items :] = items, True
    return Sequence(tokens, answers)
