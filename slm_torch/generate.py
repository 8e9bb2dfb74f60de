"""Decoding one sequence with a KV cache."""

import numpy as np
import torch

from slm_torch.model import Transformer


class Decoder:
    """Decodes one sequence with a KV cache; see `slm_core.protocols.Decoder`."""

    def __init__(self, model: Transformer):
        self.model = model
        self.context = model.context
        self.device = model.embed.weight.device
        self._begin()

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Reads the prompt from position 0, and returns the logits after its last token."""
        self._begin()
        return self._append(tokens)

    def step(self, token: int) -> np.ndarray:
        """Reads one more token, and returns the logits after it."""
        return self._append([token])

    def _begin(self) -> None:
        self.caches = self.model.empty_caches(1, self.model.embed.dtype, self.device)
        self.length = 0

    @torch.inference_mode()
    def _append(self, tokens: list[int]) -> np.ndarray:
        hidden, _ = self.model(torch.tensor([tokens], device=self.device), self.length, caches=self.caches)
        self.length += len(tokens)
        return self.model.logits(hidden[0, -1]).cpu().numpy()
