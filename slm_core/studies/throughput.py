"""Training speed, measured so that noise cannot decide it.

Every contender has a process of its own, and they take turns in short rounds, so that what disturbs the machine
disturbs all of them. Medians, and ratios of speeds in the same round, are reported.
"""

import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.protocols import Engine

WARM_UP_STEPS = 5


class Trainee(Protocol):
    """A training loop that can be run a few updates at a time."""

    parameters: int

    def run(self, updates: int) -> list[float]:
        """Does that many updates, from feeding the data to the finished weights, and returns their losses."""

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory so far."""


@dataclass(frozen=True)
class Contender:
    """What is measured: `make(config)`, called in a process of its own, must be picklable."""

    name: str
    make: Callable[[Config], Trainee]
    config: Config


@dataclass
class Measurement:
    """What was found of one contender; `speeds` has the tokens a second of each round."""

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
        """Median tokens a second."""
        return statistics.median(self.speeds)

    @property
    def update_ms(self) -> float:
        """Median milliseconds an update."""
        return 1e3 * self.tokens_per_update / self.speed

    @property
    def compile_s(self) -> float:
        """Seconds that the first update took beyond a later one."""
        return max(self.first_update_s - self.update_ms / 1e3, 0.0)


class TwinTrainee:
    """One of our twins: the body of `slm_core.training.loop` without files and display."""

    def __init__(self, config: Config, build: Callable[[Config, int], Engine]):
        from slm_core import data
        from slm_core.training.schedules import learning_rates

        dataset = data.prepare(config.data)
        self.engine = build(config, dataset.vocab_size)
        self.batches = data.Batches(dataset, "train", config.data.seq_len, config.train.batch_size, config.seed)
        self.rates = learning_rates(config.optim, config.train.steps)
        self.step = 0
        state = self.engine.export_state()
        self.parameters = sum(value.size for name, value in state.items() if name.startswith("params/"))

    def run(self, updates: int) -> list[float]:
        losses, pending = [], None
        for _ in range(updates):
            lr = float(self.rates[min(self.step, len(self.rates) - 1)])
            metrics = self.engine.train_step(next(self.batches), lr, self.step)
            self.step += 1
            if pending is not None:
                losses.append(self.engine.fetch(pending)["loss"])
            pending = metrics
        return [*losses, self.engine.fetch(pending)["loss"]]

    def peak_memory_bytes(self) -> int:
        return self.engine.peak_memory_bytes()


def process_peak_bytes() -> int:
    """Returns the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compare(
    contenders: Sequence[Contender],
    rounds: int,
    updates: int,
    say: Callable[[str], None] = print,
) -> list[Measurement]:
    """Measures contenders by turns.

    Args:
      contenders: at least one.
      rounds: turns of each.
      updates: updates a turn.
      say: takes a line of progress.

    Raises:
      UserError: what a contender's `make` or `run` raised, with its name.
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
    """The measuring side of one contender's process, which is warm when this returns."""

    def __init__(self, contender: Contender):
        # Spawned, not forked: a fork would inherit whatever threads and settings this process has.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._name = contender.name
        try:
            self.measurement: Measurement = self._receive()
        except BaseException:
            self.stop()
            raise

    def turn(self, updates: int) -> float:
        """Lets it do `updates`; returns and records its tokens a second."""
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
    """The measured side: warms up, then does as many updates as it is told, until it is stopped."""
    try:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # or the first update would not show the compilation
        trainee = contender.make(contender.config)
        tokens = contender.config.train.batch_size * contender.config.data.seq_len
        seconds, losses = _timed(trainee, 1)
        trainee.run(WARM_UP_STEPS)
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


def ratios(ours: Measurement, theirs: Measurement) -> tuple[float, float, float]:
    """Returns the median, minimum and maximum over the rounds of our speed divided by theirs."""
    pairs = [a / b for a, b in zip(ours.speeds, theirs.speeds, strict=True)]
    return statistics.median(pairs), min(pairs), max(pairs)


def table(measurements: Sequence[Measurement], reference: Measurement | None = None) -> str:
    """Returns a Markdown table, one row a contender; the last column is the speed over the reference's."""
    head = [
        "contender",
        "parameters",
        "tokens/s",
        "ms/update",
        "peak GB",
        "compile s",
        "loss",
    ]
    rows = []
    for m in measurements:
        loss = f"{m.first_loss:.2f} to {m.last_loss:.2f}"
        row = [m.name, f"{m.parameters:,}", f"{m.speed:,.0f}", f"{m.update_ms:,.0f}"]
        row += [f"{m.peak_memory_bytes / 1e9:.2f}", f"{m.compile_s:.1f}", loss]
        if reference:
            row.append("1" if m is reference else "{:.3f} ({:.3f} to {:.3f})".format(*ratios(m, reference)))
        rows.append(row)
    if reference:
        head.append(f"over {reference.name}, median (range)")
    return markdown_table(head, rows)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns line up."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> str:
    """Describes the machine and the libraries in one line, with its load: a busy machine measures nothing."""
    libraries = []
    for name in ("torch", "jax", "flax", "optax"):
        try:
            libraries.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cpu_name()}, {os.cpu_count()} cores{load}, {', '.join(libraries)}"


def cpu_name() -> str:
    """Returns the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
