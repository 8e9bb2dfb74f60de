"""Shows how far a study is: a live bar in a terminal, a line per finished run anywhere else."""

import sys
import time
from typing import Any

from slm_core.studies.runner import Progress
from slm_core.training.display.plain import duration


class StudyDisplay:
    """Shows the progress that `Runner` reports. Use it in a `with`."""

    def __init__(self, runs: int):
        self._runs = runs
        self._began = time.monotonic()
        self._first: float | None = None  # share of the updates that earlier processes did
        self._shown: tuple[int, int] | None = None
        self._bar: Any = None

    def __enter__(self) -> "StudyDisplay":
        if sys.stdout.isatty():
            from rich import progress

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.percentage:>3.0f}%"),
            )
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Shows a new state."""
        if self._first is None:
            self._first = progress.share
        text = self._text(progress)
        if self._bar:
            running = "".join(f"\n  {name} {share:.0%}" for name, share in progress.running.items())
            self._bar.update(self._task, completed=progress.share, description=text + running)
        elif (progress.finished, progress.failed) != self._shown:
            self._shown = (progress.finished, progress.failed)
            print(text, flush=True)

    def _text(self, progress: Progress) -> str:
        done = f"{progress.finished}/{self._runs} runs"
        failed = f", {progress.failed} failed" if progress.failed else ""
        return f"{done}{failed}, {progress.share:.0%} of all updates{self._left(progress.share)}"

    def _left(self, share: float) -> str:
        """Estimates the time left from the updates of this process."""
        progressed = share - (self._first or 0.0)
        if progressed <= 0 or share >= 1:
            return ""
        return f", {duration((time.monotonic() - self._began) * (1 - share) / progressed)} left"

    def stopping(self) -> None:
        """The user asked to stop. Called from a signal handler."""
        print("stopping: the running ones save; the same command goes on", file=sys.stderr, flush=True)
