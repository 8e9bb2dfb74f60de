"""Reads the logit lens: what the model would predict if it ended after each layer."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LayerLens:
    """What one layer would predict of a prompt.

    Args:
      layer: its path, "layers.3".
      likeliest: the token with the largest probability after each position, [time].
      probability: of that token, [time].
      of_next: probability of the token that does follow, [time - 1].
    """

    layer: str
    likeliest: np.ndarray
    probability: np.ndarray
    of_next: np.ndarray

    @property
    def loss(self) -> float:
        """The mean of -log p of the tokens that do follow, nats per token."""
        with np.errstate(divide="ignore"):
            return float(-np.log(self.of_next).mean())


def layer_lens(layer: str, logs: np.ndarray, tokens: np.ndarray) -> LayerLens:
    """Reads one layer.

    Args:
      layer: its path.
      logs: log p of each token after each position, [time, vocab].
      tokens: ids of the prompt, [time].
    """
    likeliest = logs.argmax(-1)
    positions = np.arange(len(tokens))
    of_next = np.exp(logs[positions[:-1], tokens[1:]], dtype=np.float64)
    return LayerLens(layer, likeliest, np.exp(logs[positions, likeliest], dtype=np.float64), of_next)
