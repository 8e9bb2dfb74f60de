"""Decoding one sequence with a KV cache."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from slm_flax.layers.cache import COUNT, Cache, trim
from slm_flax.model import Transformer
from slm_flax.params import Params, bind


class Decoder:
    """Decodes one sequence with a KV cache; see `slm_core.protocols.Decoder`."""

    def __init__(self, model: Transformer, params: Params):
        self.model = model
        self.params = params
        self.context = model.context
        self._begin()

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Reads the prompt from position 0, and returns the logits after its last token."""
        self._begin()
        return self._append(tokens)

    def step(self, token: int) -> np.ndarray:
        """Reads one more token, and returns the logits after it."""
        return self._append([token])

    def _begin(self) -> None:
        self.caches = self.model.empty_caches(1, self.model.embed.dtype)
        self.length = 0

    def _append(self, tokens: list[int]) -> np.ndarray:
        # Padding to a power of two compiles few shapes. In a cache the padding lies after the last token: the mask
        # hides it until a real token overwrites it. A rolling cache cuts it off.
        room = min(power_of_two(len(tokens)), self.context - self.length)
        padded = np.pad(np.array([tokens], np.int32), ((0, 0), (0, room - len(tokens))))
        start, last = np.int32(self.length), np.int32(len(tokens) - 1)
        logits, self.caches = _decode(self.model, self.params, padded, start, last, self.caches)
        self.length += len(tokens)
        return np.asarray(logits)


def power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()


@partial(jax.jit, static_argnums=0, donate_argnames="caches")
def _decode(
    model: Transformer, params: Params, tokens: Array, start: Array, last: Array, caches: list[Cache]
) -> tuple[Array, list[Cache]]:
    """Computes the logits after token `last` of `tokens`, and the extended caches."""
    model = bind(model, params)
    extended = [cache | {COUNT: last + 1} for cache in caches]
    hidden, _ = model(tokens, start, caches=extended)
    caches = [trim(*pair, last + 1) for pair in zip(extended, caches, strict=True)]
    return model.logits(jnp.take(hidden[0], last, axis=0)), caches
