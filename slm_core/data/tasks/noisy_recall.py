"""Noisy in-context recall: in-context recall between tokens that mean nothing (MAD, Poli et al. 2024,
https://arxiv.org/abs/2403.17844).

    k3 v1 n7 n2 k3 v1 n0 n0 k0 v4
                   ^^ the answer

As in-context recall. A pair is replaced by two noise tokens with the probability `noise`; the 16 noise tokens are words
of their own. The numbers are MAD's: noise 0.2, 16 noise tokens.
"""

import numpy as np

from slm_core.data.tasks.in_context_recall import first_ones, interleaved, least, recall
from slm_core.data.tasks.in_context_recall import words as recall_words
from slm_core.data.tasks.task import Options, Sequence, numbered

NOISE = 16
"""Different noise tokens."""

__all__ = ["least", "sample", "words"]


def words(options: Options) -> list[str]:
    return [*recall_words(options), *numbered("n", NOISE)]


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    while True:  # until a key comes twice
        pairs, answers = recall(rng, options)
        noisy = rng.random(len(pairs)) < options.noise
        answers[:, 1] = ~noisy & ~first_ones(np.where(noisy, -1, pairs[:, 0]))
        pairs[noisy] = rng.integers(1 + options.symbols, 1 + options.symbols + NOISE, (noisy.sum(), 2))
        if answers.ravel()[: options.length].any():
            return interleaved(pairs, answers, options.length)
