"""Chooses the text that a BPE is trained on: the train part, or a sample of it if that is too large for the memory."""

import random
import re
from collections.abc import Callable, Iterator

from slm_core.data.chunks import Chunk
from slm_core.data.scan import Scan
from slm_core.data.split import TRAIN, Rule

SAMPLE = 256 * 1024 * 1024
"""The largest number of bytes of text."""

DISTINCT = 6 * 1024 * 1024
"""The largest number of bytes of distinct words. The trainer's memory grows with them, not with the text. Measured: 45
bytes per byte in source code, 120 in Chinese, where a word is a whole clause."""

_WORD = re.compile(r"\w+")


class Sample:
    """Text of the train part. Chunks come in a fixed random order, so that a sample is spread over the whole source.

    Attributes:
      size: bytes of text that `texts` has given so far.
      complete: whether that was the whole train part.
    """

    def __init__(self, chunks: list[Chunk], scan: Scan, rule: Rule):
        self._chunks, self._scan, self._rule = chunks, scan, rule
        self._words: set[str] = set()
        self._distinct = 0
        self.size = 0
        self.complete = False

    def texts(self, advance: Callable[[int], None]) -> Iterator[str]:
        """Yields the sample piece by piece; calls `advance` with the number of bytes that were read."""
        order = list(range(len(self._chunks)))
        random.Random(0).shuffle(order)
        for index in order:
            offset = self._scan.offsets[index]
            for piece in self._chunks[index].pieces():
                for side, text in self._rule.sides(piece, offset):
                    if side == TRAIN:
                        decoded = text.decode("utf-8")
                        yield decoded
                        self._count(decoded, len(text))
                offset += len(piece.text)
                advance(len(piece.text))
                if self.size >= SAMPLE or self._distinct >= DISTINCT:
                    return
        self.complete = True

    def _count(self, decoded: str, size: int) -> None:
        self.size += size
        new = set(_WORD.findall(decoded)) - self._words
        self._words |= new
        self._distinct += sum(len(word.encode()) for word in new)
