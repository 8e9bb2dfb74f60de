"""Compression: keep a whole random string, and say the symbol of any place (after MAD, Poli et al. 2024,
https://arxiv.org/abs/2403.17844).

    s3 s1 s4 > p1 s1 p0 s3 p2 s4
                  ^^    ^^    ^^ the answers

`items` symbols are drawn with replacement. After the mark ">" each place is asked once, in random order, as far as
there is room. In MAD the mark's vector alone is decoded, by an MLP that gets the place; a language model has no such
decoder. So the place is a token here. A model with a state of fixed size must compress the string; full attention can
look it up.
"""

from collections.abc import Iterator

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, filled, numbered

MARK, FIRST = 1, 2
"""The ids of the mark and of the first symbol."""


def words(options: Options) -> list[str]:
    return [BLANK, ">", *numbered("s", options.symbols), *numbered("p", options.items)]


def least(options: Options) -> Least:
    return Least(length=options.items + 3)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    return filled(_questions(rng, options), options.length)


def _questions(rng: np.random.Generator, options: Options) -> Iterator[tuple[int, bool]]:
    symbols = rng.integers(FIRST, FIRST + options.symbols, options.items)
    yield from ((int(symbol), False) for symbol in symbols)
    yield MARK, False
    for place in rng.permutation(options.items):
        yield FIRST + options.symbols + int(place), False
        yield int(symbols[place]), True
