"""Shows a run to the user: a live display in a terminal, plain lines anywhere else."""

import os
import sys
from typing import Any, Protocol


class Display(Protocol):
    """Shows a run. Every method returns at once."""

    def start(self) -> None:
        """Begins to show progress."""

    def progress(self, step: int, loss: float, skipped: int) -> None:
        """An update is complete."""

    def line(self, row: dict[str, Any]) -> None:
        """A train line of metrics.jsonl was written."""

    def evaluated(self, step: int, loss: float | None, accuracy: float | None = None) -> None:
        """The validation loss is known, in nats per token; None: it is not finite. Accuracy is shown if it is given."""

    def sample(self, step: int, text: str) -> None:
        """The model wrote a text."""

    def stopping(self, step: int) -> None:
        """The user asked to stop, during this update. Called from a signal handler."""

    def stop(self) -> None:
        """Ends the progress and leaves the terminal as it was."""


def make_display(step: int, steps: int) -> Display:
    """Makes the live display if standard output is a terminal, else the plain one.

    Args:
      step: updates completed before this process began.
      steps: updates of the whole run.
    """
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        from slm_core.training.display.rich import LiveDisplay

        return LiveDisplay(step, steps)
    return PlainDisplay(steps)


def duration(seconds: float) -> str:
    """Formats 9.6 as "10s", 100 as "1m40s", 7500 as "2h05m"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    return f"{seconds // 3600}h{seconds // 60 % 60:02}m"


def printable(text: str) -> str:
    """Replaces the characters that a terminal would obey (escape, bell, carriage return, ...) by U+FFFD."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def number(value: float | None, form: str) -> str:
    """Formats a value of metrics.jsonl, in which null may mean that it is not finite."""
    return "not finite" if value is None else format(value, form)


def remaining(row: dict[str, Any], steps: int) -> str:
    """Predicts the time of the rest of the run, without evaluations, from the speed of this train line."""
    tokens_left = (steps - row["step"]) * row["tokens"] / row["step"]
    return duration(tokens_left / row["tokens_per_second"])


def describe(row: dict[str, Any], steps: int) -> str:
    """Writes a train line of metrics.jsonl for reading."""
    parts = [
        f"loss {number(row['loss'], '.3f')}",
        f"lr {row['lr']:.1e}",
        f"{row['tokens_per_second']:,.0f} tok/s",
        f"{row['peak_memory_bytes'] / 1e9:.1f} GB",
        f"eta {remaining(row, steps)}",
    ]
    if row["skipped"]:
        parts.append(f"skipped {row['skipped']}")
    return "  ".join(parts)


def evaluation_text(loss: float | None, accuracy: float | None) -> str:
    """Writes the result of an evaluation for reading."""
    more = "" if accuracy is None else f", accuracy {accuracy:.3f}"
    return f"validation loss {number(loss, '.3f')} nats/token{more}"


class PlainDisplay:
    """Prints lines for a log file or a pipe."""

    def __init__(self, steps: int):
        self._steps = steps

    def start(self) -> None:
        pass

    def progress(self, step: int, loss: float, skipped: int) -> None:
        pass

    def line(self, row: dict[str, Any]) -> None:
        width = len(str(self._steps))
        print(f"step {row['step']:{max(6, width)}}/{self._steps}  {describe(row, self._steps)}", flush=True)

    def evaluated(self, step: int, loss: float | None, accuracy: float | None = None) -> None:
        print(f"step {step} {evaluation_text(loss, accuracy)}", flush=True)

    def sample(self, step: int, text: str) -> None:
        print(f"step {step} sample:\n{printable(text)}\n", flush=True)

    def stopping(self, step: int) -> None:
        # Not print: the handler may have interrupted a print, and text buffers are not re-entrant.
        if sys.__stderr__ is not None:  # a process without a console has none
            os.write(sys.__stderr__.fileno(), f"\n{stopping_text(step)}\n".encode())

    def stop(self) -> None:
        pass


def stopping_text(step: int) -> str:
    """Returns the answer to the first Ctrl-C, during update number `step`."""
    return f"finishing step {step}, saving, then stopping (Ctrl-C again: abort at once)"
