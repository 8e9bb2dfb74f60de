"""Decides which text is held out for validation, and where a long document is cut into blocks.

hash: a document of at most `LONG` bytes goes whole to one side, by a hash of its content. New documents move none of
the old ones, and exact duplicates stay together. A longer document is cut at line boundaries into blocks, and so is any
text file that is a source by itself. Every 1/val_fraction-th of its blocks is held out, from a start that a hash of the
document's first bytes gives. So a single file always has validation text.

tail: the last val_fraction of the source is held out, counted in bytes of text, in the order of the source.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LONG = 256 * 1024
"""Bytes of the longest document that is not cut into blocks."""

TRAIN, VALIDATION = 0, 1
SIDES = ("train", "validation")
_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole document, or one block of a long one."""

    text: bytes  # UTF-8 without NUL
    last: bool = True  # it ends its document
    block: int | None = None  # its index in a long document; None: a whole document
    phase: float = 0.0  # of a long document, in [0, 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """Says which side a piece goes to. `boundary`, the first byte of validation text, is read by "tail" alone."""

    split: str
    fraction: float
    boundary: int = 0

    def sides(self, piece: Piece, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yields the (side, text) of a piece whose first byte is byte `offset` of the source's text."""
        if self.split == "hash":
            yield (VALIDATION if self._held_out(piece) else TRAIN), piece.text
            return
        at = min(max(self.boundary - offset, 0), len(piece.text))
        at = character_start(piece.text, at)
        if at > 0:
            yield TRAIN, piece.text[:at]
        if at < len(piece.text):
            yield VALIDATION, piece.text[at:]

    def _held_out(self, piece: Piece) -> bool:
        if piece.block is None:
            return hash_to_fraction(piece.text) < self.fraction
        start = piece.block * self.fraction + piece.phase
        return math.floor(start + self.fraction) > math.floor(start)


def hash_to_fraction(data: bytes) -> float:
    """Hashes `data` to a number in [0, 1)."""
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 11) / 2**53


def tail_boundary(total: int, fraction: float) -> int:
    """Computes the first byte of validation text under "tail" (for 0.1: int(0.9 * total), as in nanoGPT)."""
    return int(total * (1 - fraction))


def block_size(size: int) -> int:
    """Computes the nominal bytes of a block of a long document of `size` bytes: about 1/128 of it, 4 to 64 KiB.

    A document under 64 KiB is cut only if it is the whole source. It has about 16 blocks.
    """
    low = min(4096, max(_power_of_two(size // 16), 64))
    return min(max(_power_of_two(size // 128), low), 64 * 1024)


def block_start(read: Callable[[int, int], bytes], size: int, block: int, index: int) -> int:
    """Finds where block `index` starts: the first line at or after its nominal place, else the first character.

    Args:
      read: (offset, length) -> bytes of the document, shorter at its end.
      size: bytes of the document.
      block: nominal bytes of a block.
    """
    offset = index * block
    if offset == 0 or offset >= size:
        return min(offset, size)
    window = read(offset - 1, block)
    newline = window.find(b"\n")
    return offset + newline if newline >= 0 else offset + character_start(window[1:5], 0)


def character_start(text: bytes, at: int) -> int:
    """Finds the first place at or after `at` that is not inside a UTF-8 character (at most 3 bytes on)."""
    end = min(at + 3, len(text))
    while at < end and text[at] & 0xC0 == 0x80:
        at += 1
    return at


def blocks(read: Callable[[int, int], bytes], size: int, first: int = 0, stop: int | None = None) -> Iterator[Piece]:
    """Yields blocks `first` to `stop` of a long document, unchecked. The other arguments are those of `block_start`."""
    block, phase = block_size(size), hash_to_fraction(read(0, _HEAD))
    count = block_count(size)
    stop = count if stop is None else stop
    start = block_start(read, size, block, first)
    for index in range(first, stop):
        end = block_start(read, size, block, index + 1)
        if end > start:
            yield Piece(read(start, end - start), last=end == size, block=index, phase=phase)
        start = end


def block_count(size: int) -> int:
    """Counts the blocks of a long document of `size` bytes."""
    return -(-size // block_size(size))


def document(text: bytes) -> Iterator[Piece]:
    """Yields the pieces of a document that is in memory."""
    if len(text) > LONG:
        yield from blocks(lambda offset, length: text[offset : offset + length], len(text))
    elif text:
        yield Piece(text)


def _power_of_two(n: int) -> int:
    return 1 << max(n.bit_length() - 1, 0)
