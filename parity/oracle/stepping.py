"""Decodes a row of tokens with a cache, in any twin and in the class: a prompt at once, then token by token."""

import numpy as np

from slm_core.protocols import Decoder

LENGTH, PROMPT = 24, 17
"""Tokens of a row, and of the prompt that is read at once."""


def stepped(decoder: Decoder, row: np.ndarray) -> np.ndarray:
    """Returns the logits after the prompt and after each further token, [length - start + 1, vocab]."""
    start = prompt_of(len(row))
    cached = [decoder.prefill(row[:start].tolist())]
    return np.stack(cached + [decoder.step(int(token)) for token in row[start:]])


def prompt_of(length: int) -> int:
    """Returns the length of the prompt of a row."""
    return min(PROMPT, length - 1)
