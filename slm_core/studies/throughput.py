"""Compares the training speed of contenders, so that noise does not decide the result.

Every contender has a process of its own. They take turns in short rounds, so that a disturbance of the machine disturbs
all of them. Medians are reported, and ratios of speeds in the same round.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.studies.tables import markdown_table

WARM_UP_UPDATES = 5


class Trainee(Protocol):
    """A training loop that can run a few updates at a time."""

    parameters: int

    def run(self, updates: int) -> list[float]:
        """Does that many updates, from the feeding of data to the finished weights, and returns their losses."""

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory so far."""


@dataclass(frozen=True)
class Contender:
    """A trainee to be measured. `make(config)` is called in a process of its own, so `make` must be picklable."""

    name: str
    make: Callable[[Config], Trainee]
    config: Config


@dataclass(frozen=True)
class Contest:
    """Contenders that take turns.

    Args:
      title: what they do.
      contenders: at least one.
      references: names of those whose speed every speed is divided by.
      notes: what the reader must know, one line each.
    """

    title: str
    contenders: Sequence[Contender]
    references: Sequence[str]
    notes: Sequence[str] = ()


@dataclass
class Measurement:
    """The measurements of one contender. `speeds` has the tokens per second of each round."""

    name: str
    parameters: int
    tokens_per_update: int
    first_update_s: float  # compilation included
    first_loss: float
    last_loss: float = float("nan")
    peak_memory_bytes: int = 0
    speeds: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Median tokens per second."""
        return statistics.median(self.speeds)

    @property
    def update_ms(self) -> float:
        """Median milliseconds per update."""
        return 1e3 * self.tokens_per_update / self.speed

    @property
    def compile_s(self) -> float:
        """Seconds by which the first update took longer than a later one."""
        return max(self.first_update_s - self.update_ms / 1e3, 0.0)


def compare(
    contenders: Sequence[Contender],
    rounds: int,
    updates: int,
    say: Callable[[str], None] = print,
) -> list[Measurement]:
    """Measures contenders in turns.

    Args:
      contenders: at least one.
      rounds: turns of each.
      updates: updates per turn.
      say: is called with each line of progress.

    Raises:
      UserError: a contender's `make` or `run` raised an error.
    """
    processes = []
    try:
        for contender in contenders:
            processes.append(_Process(contender))
            say(f"{contender.name}: {processes[-1].measurement.parameters:,} parameters, warm")
        for turn in range(rounds):
            speeds = [process.turn(updates) for process in processes]
            say(f"round {turn + 1}/{rounds}: " + ", ".join(f"{speed:,.0f}" for speed in speeds) + " tokens/s")
        return [process.measurement for process in processes]
    finally:
        for process in processes:
            process.stop()


class _Process:
    """Controls the process of one contender. The contender is warm when this returns."""

    def __init__(self, contender: Contender):
        # Spawned, not forked: a fork would inherit the threads and settings of this process.
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, far_end), daemon=True)
        self._process.start()
        far_end.close()
        self._name = contender.name
        try:
            self.measurement: Measurement = self._receive()
        except BaseException:
            self.stop()
            raise

    def turn(self, updates: int) -> float:
        """Lets the contender do `updates`. Returns and records its tokens per second."""
        self._pipe.send(updates)
        seconds, self.measurement.last_loss, self.measurement.peak_memory_bytes = self._receive()
        self.measurement.speeds.append(updates * self.measurement.tokens_per_update / seconds)
        return self.measurement.speeds[-1]

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise UserError(
                f"{self._name} ended without an answer: out of memory? try a smaller train.batch_size"
            ) from None
        if isinstance(answer, Exception):
            raise UserError(f"{self._name}: {answer}") from None
        return answer


def _serve(contender: Contender, pipe: Any) -> None:
    """Runs in the contender's process: warms up, then does as many updates as it is told, until it is stopped."""
    try:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # else the first update might not show the compilation
        trainee = contender.make(contender.config)
        tokens = contender.config.train.batch_size * contender.config.data.seq_len
        seconds, losses = _timed(trainee, 1)
        trainee.run(WARM_UP_UPDATES)
        pipe.send(Measurement(contender.name, trainee.parameters, tokens, seconds, losses[0]))
        while True:
            seconds, losses = _timed(trainee, pipe.recv())
            pipe.send((seconds, losses[-1], trainee.peak_memory_bytes()))
    except EOFError:
        pass
    except UserError as error:
        pipe.send(error)
    except Exception as error:
        pipe.send(UserError(f"{type(error).__name__}: {' '.join(str(error).split())}"))


def _timed(trainee: Trainee, updates: int) -> tuple[float, list[float]]:
    began = time.perf_counter()
    losses = trainee.run(updates)
    return time.perf_counter() - began, losses


def speed_ratios(measured: Measurement, reference: Measurement) -> tuple[float, float, float]:
    """Returns the median, minimum and maximum of one speed divided by another, over the rounds."""
    ratios = [a / b for a, b in zip(measured.speeds, reference.speeds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def table(measurements: Sequence[Measurement], references: Sequence[str] = ()) -> str:
    """Writes a Markdown table: one row per contender, and its speed over that of each reference, named in a column."""
    head = [
        "contender",
        "parameters",
        "tokens/s",
        "ms/update",
        "peak GB",
        "compile s",
        "loss",
    ]
    head += [f"over {name}, median (range)" for name in references]
    compared = [m for name in references for m in measurements if m.name == name]
    rows = []
    for m in measurements:
        loss = f"{m.first_loss:.2f} to {m.last_loss:.2f}"
        row = [m.name, f"{m.parameters:,}", f"{m.speed:,.0f}", f"{m.update_ms:,.0f}"]
        row += [f"{m.peak_memory_bytes / 1e9:.2f}", f"{m.compile_s:.1f}", loss]
        row += [
            "1" if m is other else "{:.3f} ({:.3f} to {:.3f})".format(*speed_ratios(m, other)) for other in compared
        ]
        rows.append(row)
    return markdown_table(head, rows)
