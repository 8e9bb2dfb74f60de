"""Measures induction heads: heads that find the earlier occurrence of a token, and look at what followed it.

The score is the one of Olsson et al. 2022, "In-context learning and induction heads"
(https://arxiv.org/abs/2209.11895): the model reads random tokens twice, and at each token of the second copy the score
takes the weight that the head gives to the token that followed the first one.
"""

from dataclasses import dataclass

import numpy as np

SEED = 0
ROWS = 8
"""Sequences that a score is the mean of."""
LONGEST = 64
"""Tokens of a copy, at most."""


@dataclass(frozen=True)
class HeadScores:
    """The mean attention weights of each head on random tokens that are repeated, [heads] each.

    Args:
      induction: from a token of the second copy to the one that followed it in the first copy.
      previous: from a token to the one before it. A head of an earlier layer that does this lets another do induction.
      first: from a token to the first one of the sequence.
    """

    induction: np.ndarray
    previous: np.ndarray
    first: np.ndarray


def repeated_tokens(vocab_size: int, context: int) -> np.ndarray:
    """Draws random tokens that come twice. They are the same for equal arguments.

    No token comes twice in a copy, so that "the one that followed it" is clear.

    Args:
      vocab_size: number of token ids.
      context: the largest number of positions.

    Returns:
      int32 [ROWS, 2 n]; n is at most half of the context, the vocabulary, and `LONGEST`.
    """
    length = max(1, min(context // 2, vocab_size, LONGEST))
    rng = np.random.default_rng(SEED)
    copy = np.stack([rng.choice(vocab_size, length, replace=False) for _ in range(ROWS)])
    return np.concatenate([copy, copy], axis=1).astype(np.int32)


def head_scores(weights: np.ndarray) -> HeadScores:
    """Computes the scores of the heads of a layer.

    Args:
      weights: on `repeated_tokens`, [rows, heads, time, time].
    """
    time = weights.shape[-1]
    half, after = time // 2, np.arange(1, time)
    second = np.arange(half, time)
    return HeadScores(
        induction=_mean(weights[:, :, second, second - half + 1]),
        previous=_mean(weights[:, :, after, after - 1]),
        first=_mean(weights[:, :, after, 0]),
    )


def _mean(weights: np.ndarray) -> np.ndarray:
    """Returns the mean over rows and positions, [heads]."""
    return weights.mean(axis=(0, 2), dtype=np.float64)
