"""In-context recall: say the value that a key had before (MAD, Poli et al. 2024, https://arxiv.org/abs/2403.17844).

    k3 v1 k0 v4 k3 v1 k3 v1 k0 v4
                   ^^    ^^    ^^ the answers

Half of the `symbols` are keys and half are values. A sequence uses `items` different keys, each with a random value of
its own. Pairs come one after the other, and their keys are drawn with replacement. The value of a key that came before
is an answer. MAD's keys are all keys of the vocabulary: 16 `symbols` and 8 `items`.
"""

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, numbered


def words(options: Options) -> list[str]:
    keys = options.symbols // 2
    return [BLANK, *numbered("k", keys), *numbered("v", options.symbols - keys)]


def least(options: Options) -> Least:
    """One pair more than there are keys: then a key comes twice."""
    return Least(length=2 * options.items + 2, symbols=2 * options.items)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    return interleaved(*recall(rng, options), options.length)


def recall(rng: np.random.Generator, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Draws keys and values, int [pairs, 2], and says which of them are answers, bool [pairs, 2]."""
    half = options.symbols // 2
    keys = 1 + rng.permutation(half)[: options.items]
    values = rng.integers(1 + half, 1 + options.symbols, options.items)
    drawn = rng.integers(options.items, size=(options.length + 1) // 2)
    return np.stack([keys[drawn], values[drawn]], 1), np.stack([np.zeros(len(drawn), bool), ~first_ones(drawn)], 1)


def first_ones(drawn: np.ndarray) -> np.ndarray:
    """Says of each number whether it is the first of its value, bool [n]."""
    first = np.zeros(len(drawn), bool)
    first[np.unique(drawn, return_index=True)[1]] = True
    return first


def interleaved(pairs: np.ndarray, answers: np.ndarray, length: int) -> Sequence:
    """Makes a sequence of pairs of tokens, [pairs, 2], one after the other."""
    return Sequence(pairs.ravel()[:length], answers.ravel()[:length])
