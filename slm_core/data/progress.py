"""Shows how far a preparation is: a bar in a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_EVERY = 5.0  # seconds between plain lines


class Progress:
    """Shows phases of work on stderr. `shown=False` shows nothing."""

    def __init__(self, shown: bool):
        self.shown = shown

    def say(self, line: str) -> None:
        """Prints one line."""
        if self.shown:
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def phase(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with each number of bytes that is done.

        Args:
          total: bytes in all; None if that is unknown.
        """
        if self.shown and sys.stderr.isatty():
            yield from self._bar(title, total)
        elif self.shown:
            yield self._lines(title, total)
        else:
            yield lambda size: None

    def _bar(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description:>10}"),
            bars.BarColumn(),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda size: bar.advance(task, size)

    def _lines(self, title: str, total: int | None) -> Callable[[int], None]:
        start = last = time.monotonic()
        done = 0

        def advance(size: int) -> None:
            nonlocal done, last
            done += size
            now = time.monotonic()
            if now - last < _EVERY:
                return
            last = now
            speed = done / (now - start)
            rest = f" of {total / 1e6:,.0f} MB, {max(total - done, 0) / speed:.0f} s left" if total else ""
            self.say(f"{title}: {done / 1e6:,.0f} MB{rest}, {speed / 1e6:.1f} MB/s")

        return advance
