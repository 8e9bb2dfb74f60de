"""The text that a BPE is trained on: the train part, or a sample of it where the trainer would need too much memory."""

import random
import re
from collections.abc import Callable, Iterator

from slm_core.data.chunks import Chunk
from slm_core.data.scan import Scan
from slm_core.data.split import TRAIN, Rule

SAMPLE = 256 * 1024 * 1024
"""Bytes of text at most."""

DISTINCT = 6 * 1024 * 1024
"""Bytes of distinct words at most: the trainer's memory grows with them (measured: 45 bytes a byte in source code, 120
in Chinese, where a word is a whole clause), not with the text."""

_WORD = re.compile(r"\w+")


class Sample:
    """Text of the train part, chunks in a fixed random order so that wherever it ends it is spread over the source.

    Attributes, of what `texts` has given so far:
      size: bytes of text.
      complete: whether that was all of the train part.
    """

    def __init__(self, chunks: list[Chunk], scan: Scan, rule: Rule):
        self._chunks, self._scan, self._rule = chunks, scan, rule
        self._words: set[str] = set()
        self._distinct = 0
        self.size = 0
        self.complete = False

    def texts(self, advance: Callable[[int], None]) -> Iterator[str]:
        """Yields the sample piece by piece and tells `advance` the bytes that were read."""
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
