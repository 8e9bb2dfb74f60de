"""Measures the speed of training."""

import contextlib
import time
from collections.abc import Iterator


class Speed:
    """Measures tokens per second of training, without evaluations, samples and checkpoints."""

    def __init__(self, tokens: int):
        """Starts the clock at this number of tokens."""
        self._start(tokens)

    def _start(self, tokens: int) -> None:
        self._tokens, self._since = tokens, time.perf_counter()

    def lap(self, tokens: int) -> float:
        """Returns the speed since the last lap, or since the start."""
        speed = (tokens - self._tokens) / max(time.perf_counter() - self._since, 1e-9)
        self._start(tokens)
        return speed

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock inside the block."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began
