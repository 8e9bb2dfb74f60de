"""Dyck brackets of bounded depth: say the kind of each closing bracket (Hewitt et al. 2020,
https://arxiv.org/abs/2010.07515; Yao et al. 2021, https://arxiv.org/abs/2105.11115, who prove that two layers can).

    (1 (0 )0 (2 )2 )1 (0
                   ^^ the answer

`symbols` is the number of kinds of brackets, and `items` is the greatest depth. Each step opens a bracket of a random
kind or closes the last one, with equal probability where both are possible. A closing bracket right behind its opening
one is no answer: the token before tells it.
"""

from collections.abc import Iterator

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, filled, numbered


def words(options: Options) -> list[str]:
    return [BLANK, *numbered("(", options.symbols), *numbered(")", options.symbols)]


def least(options: Options) -> Least:
    return Least(length=4, items=2)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    while True:  # until there is an answer
        sequence = filled(_brackets(rng, options), options.length)
        if sequence.answers.any():
            return sequence


def _brackets(rng: np.random.Generator, options: Options) -> Iterator[tuple[int, bool]]:
    kinds: list[int] = []
    opened = False  # by the token before
    drawn = zip(rng.random(options.length) < 0.5, rng.integers(options.symbols, size=options.length), strict=True)
    for opens, kind in drawn:
        opening = not kinds or (len(kinds) < options.items and opens)
        if opening:
            kinds.append(int(kind))
            yield 1 + kinds[-1], False
        else:
            yield 1 + options.symbols + kinds.pop(), not opened
        opened = opening
