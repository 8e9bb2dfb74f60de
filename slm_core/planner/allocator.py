"""Counts the bytes that are alive, part by part, now and at their peak, as PyTorch's reference counts decide."""

from dataclasses import dataclass


@dataclass(eq=False)
class Buffer:
    """Memory that is freed when its last reference goes.

    Args:
      size: bytes.
      part: the part of a prediction that counts it now.
      other_part: the part that counts it instead while an operation has saved it for its backward pass, and back.
      refs: references, those of saves among them.
      saves: operations that have saved it.
    """

    size: int
    part: str
    other_part: str
    refs: int = 1
    saves: int = 0


class Allocator:
    """Allocates and frees buffers, and remembers the peak.

    Args:
      live: {part: bytes} that are there from the start.
    """

    def __init__(self, live: dict[str, int]):
        self.live, self.peak, self.peak_total = dict(live), dict(live), sum(live.values())

    def allocate(self, size: int, part: str, part_while_saved: str = "") -> Buffer:
        self._add(part, size)
        return Buffer(size, part, part_while_saved or part)

    def retain(self, buffer: Buffer) -> Buffer:
        """Adds a reference."""
        buffer.refs += 1
        return buffer

    def release(self, buffer: Buffer) -> None:
        """Drops a reference, and frees the buffer with its last one."""
        buffer.refs -= 1
        if not buffer.refs:
            self._add(buffer.part, -buffer.size)

    def save(self, buffer: Buffer) -> Buffer:
        """Adds a reference of an operation that needs the buffer in its backward pass."""
        buffer.saves += 1
        if buffer.saves == 1:
            self._swap(buffer)
        return self.retain(buffer)

    def unsave(self, buffer: Buffer) -> None:
        """Drops such a reference."""
        buffer.saves -= 1
        if not buffer.saves:
            self._swap(buffer)
        self.release(buffer)

    def allocate_briefly(self, size: int, part: str) -> None:
        """Counts memory that is allocated and freed at once."""
        if size:
            self.release(self.allocate(size, part))

    def relabel(self, buffer: Buffer, part: str) -> None:
        """Counts the buffer under another part from now on."""
        self._add(buffer.part, -buffer.size)
        buffer.part = part
        self._add(part, buffer.size)

    def _swap(self, buffer: Buffer) -> None:
        part, buffer.other_part = buffer.other_part, buffer.part
        self.relabel(buffer, part)

    def _add(self, part: str, size: int) -> None:
        self.live[part] = self.live.get(part, 0) + size
        if size > 0 and (total := sum(self.live.values())) > self.peak_total:
            self.peak_total, self.peak = total, dict(self.live)
