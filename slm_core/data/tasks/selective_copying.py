"""Selective copying: find the symbols among blanks, and say them again (Gu and Dao 2023,
https://arxiv.org/abs/2312.00752, section 3.1; MAD, Poli et al. 2024, https://arxiv.org/abs/2403.17844).

    _ s3 _ _ s1 _ s4 _ > s3 s1 s4
                         ^^ ^^ ^^ the answers

As copying, but the `items` symbols stand at random places, so that no fixed distance leads to them.
"""

import numpy as np

from slm_core.data.tasks.copying import copied, least, words
from slm_core.data.tasks.task import Options, Sequence

__all__ = ["least", "sample", "words"]


def sample(rng: np.random.Generator, options: Options) -> Sequence:
    room = options.length - options.items - 1
    return copied(rng, options, np.sort(rng.choice(room, options.items, replace=False)))
