"""Multi-query associative recall: say the values of several keys (Zoology, Arora et al. 2023,
https://arxiv.org/abs/2312.04927).

    k3 v1 k0 v4 | v2 k0 v4 k7 v0 k3 v1   (without the bar)
                        ^^          ^^ the answers

Half of the `symbols` are keys and half are values. `items` different keys come first, each with a value; values differ,
too. Each key is asked once, in one of the places of two tokens that follow. Place i, from 1, has the weight a i^(a-1)
with a = 0.01, and no place is taken twice: gaps follow a power law, as in text. Other places have random tokens.

As in Zoology: the layout, the weights, and drawing without replacement. Unlike there, the value follows its question,
as in text, where Zoology has a random token; and no random token is a key of the sequence, so that every question is
clear.
"""

import functools

import numpy as np

from slm_core.data.tasks.task import BLANK, Least, Options, Sequence, numbered

POWER = 0.01


def words(options: Options) -> list[str]:
    keys = options.symbols // 2
    return [BLANK, *numbered("k", keys), *numbered("v", options.symbols - keys)]


def least(options: Options) -> Least:
    return Least(length=4 * options.items, symbols=2 * options.items)


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    pairs, half = options.items, options.symbols // 2
    order = 1 + rng.permutation(half)
    keys, others = order[:pairs], np.concatenate([order[pairs:], np.arange(1 + half, 1 + options.symbols)])
    values = 1 + half + rng.permutation(options.symbols - half)[:pairs]
    tokens, answers = others[rng.integers(len(others), size=options.length)], np.zeros(options.length, bool)
    tokens[0 : 2 * pairs : 2], tokens[1 : 2 * pairs : 2] = keys, values
    weights = place_weights((options.length - 2 * pairs) // 2)
    # Whichever waits least comes first: successive draws by weight, without replacement.
    asked = 2 * pairs + 2 * np.argsort(rng.exponential(size=len(weights)) / weights)[:pairs]
    tokens[asked], tokens[asked + 1] = keys, values
    answers[asked + 1] = True
    return Sequence(tokens, answers)


@functools.cache
def place_weights(count: int) -> np.ndarray:
    """Returns the probabilities of the places of a question, nearest first."""
    weights = POWER * np.arange(1, count + 1) ** (POWER - 1)
    return weights / weights.sum()
