"""Reads the logit lens: what the model would predict if it ended after each layer."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LayerLens:
    """What one layer would predict of a prompt.

    Args:
      layer: its path, "layers.3".
      likeliest: the token with the largest probability after each position, [time].
      probability: of that token, [time].
      loss: the mean of -log p of the tokens that do follow and are scored, nats per token; NaN if there is none.
    """

    layer: str
    likeliest: np.ndarray
    probability: np.ndarray
    loss: float


def layer_lens(layer: str, logs: np.ndarray, tokens: np.ndarray, scored: np.ndarray) -> LayerLens:
    """Reads one layer.

    Args:
      layer: its path.
      logs: log p of each token after each position, [time, vocab].
      tokens: ids of the prompt, [time].
      scored: for each of them after the first, whether it counts in the loss, bool [time - 1].
    """
    likeliest = logs.argmax(-1)
    positions = np.arange(len(tokens))
    of_next = logs[positions[:-1], tokens[1:]][scored]
    loss = -float(of_next.mean(dtype=np.float64)) if len(of_next) else math.nan
    return LayerLens(layer, likeliest, np.exp(logs[positions, likeliest], dtype=np.float64), loss)
