"""Memorisation: learn the values of keys by heart (MAD, Poli et al. 2024, https://arxiv.org/abs/2403.17844).

    k3 v1 k0 v4 k3 v1 k5 v2
       ^^    ^^          ^^ the answers

Half of the `symbols` are keys and half are values. Each key has one value, which `seed` fixes for every sequence,
training and validation alike. Keys are drawn with replacement. In MAD the model never reads a value. Here it follows
its key, so only the first value of a key in a sequence is an answer: nothing but the weights knows it.
"""

import functools

import numpy as np

from slm_core.data.tasks.in_context_recall import first_ones, interleaved, words
from slm_core.data.tasks.task import Least, Options, Sequence

FACTS = 2**64 - 1
"""Takes the place of the split in the key of the random numbers: facts belong to both."""

__all__ = ["least", "sample", "words"]


def least(options: Options) -> Least:
    return Least(length=2, symbols=2)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    half = options.symbols // 2
    drawn = rng.integers(half, size=(options.length + 1) // 2)
    pairs = np.stack([1 + drawn, facts(options.seed, half)[drawn]], 1)
    return interleaved(pairs, np.stack([np.zeros(len(drawn), bool), first_ones(drawn)], 1), options.length)


@functools.cache
def facts(seed: int, keys: int) -> np.ndarray:
    """Returns the token of the value of each key, int [keys]: a random order of the first `keys` values."""
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, FACTS], np.uint64)))
    return 1 + keys + rng.permutation(keys)
