"""Induction heads: find the earlier occurrence of the current token, and say what followed it (Olsson et al. 2022,
https://arxiv.org/abs/2209.11895; as a task of one step, Sanford et al. 2024, https://arxiv.org/abs/2408.14332).

    s5 s2 s7 s1 s8 s3 s4 | s7 s1 | s2 s7   (without the bars)
                              ^^      ^^ the answers

First come different symbols in random order. Then `items` of them are asked: each is followed by the symbol that
followed it before. No token is asked twice, and no answer is asked, so the last occurrence before a question is always
the first. If there are more places than `symbols`, blanks come first.
"""

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, numbered


def words(options: Options) -> list[str]:
    return [BLANK, *numbered("s", options.symbols)]


def least(options: Options) -> Least:
    return Least(length=4 * options.items, symbols=2 * options.items)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    asked = options.items
    count = min(options.symbols, options.length - 2 * asked)
    symbols = 1 + rng.permutation(options.symbols)[:count]
    # Sorted choices plus 0, 1, 2, ... are choices of which no two are neighbours.
    places = np.sort(rng.choice(count - asked, asked, replace=False)) + np.arange(asked)
    places = rng.permutation(places)
    tokens, answers = np.zeros(options.length, np.int64), np.zeros(options.length, bool)
    tokens[-2 * asked - count : -2 * asked] = symbols
    tokens[-2 * asked :: 2], tokens[-2 * asked + 1 :: 2] = symbols[places], symbols[places + 1]
    answers[-2 * asked + 1 :: 2] = True
    return Sequence(tokens, answers)
