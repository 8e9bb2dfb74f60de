"""Repetition: say again what was said before, from any place on. Olsson et al. 2022, https://arxiv.org/abs/2209.11895,
define induction heads by what they do on repeated random tokens; this task trains for it.

    s5 s2 s7 s1 s8 s3 | s7 s1 s8 | s2 s7 | s1 s8 s3   (without the bars)
                           ^^ ^^      ^^      ^^ ^^ the answers

First comes a string of different symbols in random order. Then parts of it come again, one after the other, each of 2
to `items` symbols from a random place. Each symbol of a part but its first is an answer: it follows the one before it,
as it did in the string. The string has from `items` symbols up to half of the sequence, and at most `symbols`.

Unlike in Olsson et al., parts come again and not the whole. In a string that comes again as a whole, the next symbol is
also the one that was seen longest ago, and a model can learn that instead.
"""

import numpy as np

from slm_core.data.tasks.induction import words
from slm_core.data.tasks.task import Least, Options, Sequence, filled

__all__ = ["least", "sample", "words"]


def least(options: Options) -> Least:
    return Least(length=2 * options.items, symbols=options.items, items=2)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    size = int(rng.integers(options.items, min(options.symbols, options.length // 2), endpoint=True))
    string = 1 + rng.permutation(options.symbols)[:size]
    pairs = [(token, False) for token in string]
    while len(pairs) < options.length:
        count = int(rng.integers(2, options.items, endpoint=True))
        start = int(rng.integers(size - count, endpoint=True))
        pairs += [(token, i > 0) for i, token in enumerate(string[start : start + count])]
    return filled(pairs, options.length)
