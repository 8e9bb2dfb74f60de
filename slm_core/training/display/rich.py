"""The live display, drawn by rich."""

from typing import Any

from slm_core.training.display.plain import describe, evaluation_text, number, printable, stopping_text


class LiveDisplay:
    """Shows a bar and the newest numbers at the bottom of the terminal. Evaluations and samples scroll above it."""

    def __init__(self, step: int, steps: int, console: Any = None):
        from rich.console import Console
        from rich.live import Live

        self._step, self._steps = step, steps
        self._loss: float | None = None
        self._row: dict[str, Any] | None = None
        self._validation: float | None = None
        self._skipped = 0
        self._stopping: int | None = None
        self._console = console or Console()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(f"step {self._step:,}/{self._steps:,}", "bold"),
            ProgressBar(total=self._steps, completed=self._step, width=30),
            Text(f"{100 * self._step // self._steps}%"),
        )
        lines = [bar, Text(self._numbers(), "cyan", no_wrap=True, overflow="ellipsis")]
        if self._stopping is not None:
            lines.append(Text(stopping_text(self._stopping), "yellow"))
        return Group(*lines)

    def _numbers(self) -> str:
        if self._row is None:
            return "first step (compiling, if the twin compiles)"
        text = describe(self._row | {"loss": self._loss, "skipped": self._skipped}, self._steps)
        validation = "" if self._validation is None else f"validation {self._validation:.3f}  "
        return validation + text

    def start(self) -> None:
        self._live.start()

    def progress(self, step: int, loss: float, skipped: int) -> None:
        self._step, self._loss, self._skipped = step, loss, skipped

    def line(self, row: dict[str, Any]) -> None:
        self._row = row

    def evaluated(self, step: int, loss: float | None, accuracy: float | None = None) -> None:
        self._validation = loss
        train = number(self._loss, ".3f")
        self._print(f"step {step} {evaluation_text(loss, accuracy)}  (train loss {train})")

    def sample(self, step: int, text: str) -> None:
        self._print(f"step {step} sample:", style="bold")
        self._print(printable(text) + "\n", style="dim")

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(text, style), soft_wrap=True)

    def stopping(self, step: int) -> None:
        self._stopping = step  # drawn by the next refresh

    def stop(self) -> None:
        self._live.stop()
