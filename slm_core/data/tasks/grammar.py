"""A small grammar whose verbs agree with a subject that is far away (Linzen et al. 2016,
https://arxiv.org/abs/1611.01368).

    sentence -> phrase verb .
    phrase   -> the noun { prep the noun } [ that phrase verb ]

    the noun1s near the noun0 that the noun2 sees see .
                                                  ^^^ the answer

A verb has the number of the first noun of its phrase. It is an answer if another noun stands between them: of those,
each has a random number, so the nearest noun is right half of the time. There are `symbols` nouns, each singular or
plural, and at most `items` clauses inside each other.
"""

from collections.abc import Iterator

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, filled

THE, THAT, STOP, SINGULAR, PREPOSITION, NOUN = 1, 2, 3, 4, 6, 9
"""Ids: of single words, and the first of several. The plural of a verb or noun comes after its singular."""

PREPOSITIONS = 3
CONTINUES = 0.5
"""Probability of one more preposition, and of one more clause."""


def words(options: Options) -> list[str]:
    nouns = [f"noun{i}{ending}" for i in range(options.symbols) for ending in ("", "s")]
    return [BLANK, "the", "that", ".", "sees", "see", "near", "with", "behind", *nouns]


def least(options: Options) -> Least:
    """The shortest answer is the sixth token: the noun near the noun sees."""
    return Least(length=6)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    while True:  # until there is an answer
        sequence = filled(_sentences(rng, options), options.length)
        if sequence.answers.any():
            return sequence


def _sentences(rng: np.random.Generator, options: Options) -> Iterator[tuple[int, bool]]:
    while True:
        yield from _clause(rng, options, 1)
        yield STOP, False


def _clause(rng: np.random.Generator, options: Options, depth: int) -> Iterator[tuple[int, bool]]:
    """Yields a phrase and its verb."""
    number = int(rng.integers(2))
    yield from _noun(rng, options, number)
    far = False
    while rng.random() < CONTINUES:
        yield PREPOSITION + int(rng.integers(PREPOSITIONS)), False
        yield from _noun(rng, options, int(rng.integers(2)))
        far = True
    if depth < options.items and rng.random() < CONTINUES:
        yield THAT, False
        yield from _clause(rng, options, depth + 1)
        far = True
    yield SINGULAR + number, far


def _noun(rng: np.random.Generator, options: Options, number: int) -> Iterator[tuple[int, bool]]:
    yield THE, False
    yield NOUN + 2 * int(rng.integers(options.symbols)) + number, False
