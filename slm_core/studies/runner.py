"""Does the runs of a study, a process for each, several at a time, and goes on where an earlier process stopped."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_core.config.values import value_text
from slm_core.errors import UserError
from slm_core.files import write_atomically
from slm_core.json_files import Schema, read_json
from slm_core.runs.whole import newest_named
from slm_core.studies.claims import Claim, claim
from slm_core.studies.study import Cell, arguments
from slm_core.training.metrics import read_metrics
from slm_core.training.signals import stop_on_signal

POLL = 1.0
"""Seconds between two looks at the runs."""


@dataclass(frozen=True)
class Progress:
    """How far the runs of a study are.

    Args:
      finished, failed: numbers of runs.
      waiting: number of runs that wait, or that another process does.
      running: {run: share of its updates that are done}.
      share: share of all updates that are done.
    """

    finished: int
    failed: int
    waiting: int
    running: Mapping[str, float]
    share: float


@dataclass
class _Running:
    cell: Cell
    claim: Claim
    process: subprocess.Popen[bytes]
    log: Path


class Failure(Schema):
    """A file of failures/."""

    error: str  # one line
    at: float  # seconds since 1970


def steps_done(folder: Path) -> int:
    """Returns the updates that a run's newest checkpoint has; 0 if there is none that can be used."""
    return newest_named(folder / "checkpoints")


def failure(folder: Path, name: str) -> str:
    """Returns why a run failed, one line; "" if it did not."""
    record = _failure(folder, name)
    return record.error if record else ""


def _failure(folder: Path, name: str) -> Failure | None:
    """Reads the record of a run's failure; None: there is none. A damaged one says that it is damaged."""
    path = folder / "failures" / f"{name}.json"
    if not path.exists():
        return None
    try:
        return read_json(path, Failure, "delete it to try the run again")
    except UserError as error:
        return Failure(error=str(error), at=0.0)


class Runner:
    """Does runs until all of them are finished, failed, or the user stops them.

    Args:
      folder: the study's folder, where the runs are.
      preset: the base preset, as --config names it.
      scripts: {framework: the command that trains, as words}.
      jobs: runs at a time.
      show: is called with the progress, several times per second.
    """

    def __init__(
        self,
        folder: Path,
        preset: str,
        scripts: Mapping[str, Sequence[str]],
        jobs: int,
        show: Callable[[Progress], None] = lambda progress: None,
    ):
        self.folder, self.preset, self.scripts, self.jobs, self.show = folder, preset, scripts, jobs, show
        self._began = time.time()
        self._running: list[_Running] = []
        self._steps: dict[str, int] = {}

    def run(self, cells: Sequence[Cell], announce: Callable[[], None] = lambda: None) -> bool:
        """Does the runs in their order. Returns whether all are finished or failed; False: the user stopped them.

        Args:
          announce: is called when the user asks to stop; the running ones then save and end.
        """
        self._total = {cell.name: cell.steps for cell in cells}
        waiting = list(cells)
        with ExitStack() as stack:
            stop = stack.enter_context(stop_on_signal(lambda: self._stop(announce)))
            stack.callback(self._abandon)
            while waiting or self._running:
                self._reap()
                if stop.requested and not self._running:
                    return False
                if not stop.requested:
                    waiting = self._start(waiting)
                self._show(cells, waiting)
                if waiting or self._running:
                    time.sleep(POLL)
        return True

    def _start(self, waiting: Sequence[Cell]) -> list[Cell]:
        """Starts as many runs as may run at once. Returns those that are left: waiting, or done by another process."""
        left = []
        for cell in waiting:
            if len(self._running) >= self.jobs:
                left.append(cell)
            elif not self._ended(cell):
                claimed = claim(self.folder, cell.name)
                if claimed is None:
                    left.append(cell)
                elif self._ended(cell):  # another process finished it meanwhile
                    claimed.release()
                else:
                    self._running.append(self._process(cell, claimed))
        return left

    def _stop(self, announce: Callable[[], None]) -> None:
        """Lets each run save and end. Each has a session of its own, so that Ctrl-C reaches it only through here."""
        announce()
        for running in self._running:
            running.process.terminate()

    def _process(self, cell: Cell, claimed: Claim) -> _Running:
        for folder in ("logs", "failures"):
            (self.folder / folder).mkdir(exist_ok=True)
        (self.folder / "failures" / f"{cell.name}.json").unlink(missing_ok=True)
        log = self.folder / "logs" / f"{cell.name}.log"
        command = [*self.scripts[cell.framework], *arguments(cell, self.preset)]
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=(claimed.lock,),
                start_new_session=True,
            )  # fmt: skip
        return _Running(cell, claimed, process, log)

    def _reap(self) -> None:
        """Records the runs that ended, and keeps the claims of the others."""
        for running in list(self._running):
            status = running.process.poll()
            if status is None:
                running.claim.beat()
                continue
            self._running.remove(running)
            if status and not _stopped(status):
                self._record_failure(running, status)
            running.claim.release()

    def _record_failure(self, running: _Running, status: int) -> None:
        lines = [line for line in running.log.read_text(errors="replace").splitlines() if line.strip()]
        why = lines[-1].removeprefix("error: ") if lines else ""
        if status < 0:
            why = f"its process was killed by signal {-status}: too little memory? {why}"
        record = {"error": why or f"exit status {status}", "at": time.time()}
        write_atomically(self.folder / "failures" / f"{running.cell.name}.json", json.dumps(record) + "\n")

    def _ended(self, cell: Cell) -> bool:
        """Returns whether a run is finished, or failed since this process began. Earlier failures are tried again."""
        record = _failure(self.folder, cell.name)
        if record and record.at >= self._began:
            return True
        return self._done(cell) >= self._total[cell.name]

    def _done(self, cell: Cell) -> int:
        steps = self._steps.get(cell.name, 0)
        if steps < self._total[cell.name]:
            self._steps[cell.name] = steps = steps_done(self.folder / cell.name)
        return steps

    def _show(self, cells: Sequence[Cell], waiting: Sequence[Cell]) -> None:
        running = {each.cell.name: self._share(each.cell) for each in self._running}
        left = {cell.name for cell in waiting}
        failed = sum(bool(failure(self.folder, cell.name)) for cell in cells if cell.name not in left)
        shares = [running.get(cell.name, float(cell.name not in left)) for cell in cells]
        steps = [self._total[cell.name] for cell in cells]
        share = sum(a * b for a, b in zip(shares, steps, strict=True)) / sum(steps)
        finished = len(cells) - len(left) - len(running) - failed
        self.show(Progress(finished, failed, len(left), running, share))

    def _share(self, cell: Cell) -> float:
        rows = read_metrics(self.folder / cell.name / "metrics.jsonl")
        return min(1.0, rows[-1]["step"] / self._total[cell.name]) if rows else 0.0

    def _abandon(self) -> None:
        """Waits for the runs that still save; after a second Ctrl-C, ends them at once."""
        for running in self._running:
            running.process.terminate()
        for running in self._running:
            running.process.wait()
            running.claim.release()


def _stopped(status: int) -> bool:
    """Returns whether a run ended because the user asked it to."""
    return status in (130, 143, -2, -15)


def training_commands(root: Path, python: str) -> dict[str, list[str]]:
    """Returns {framework: the command that trains with it}.

    Raises:
      UserError: the scripts are not there.
    """
    commands = {twin: [python, str(root / "scripts" / f"train_{twin}.py")] for twin in ("torch", "flax")}
    missing = [command[1] for command in commands.values() if not os.path.isfile(command[1])]
    if missing:
        raise UserError(f"{missing[0]} is missing: run the study from a checkout of this project")
    return commands


def train_once(command: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Trains one run in a process, and waits for it.

    Args:
      command: as words.
      settings: {dotted field: value}, with `run.dir` and `run.name`.

    Raises:
      UserError: the run failed; has the last line of its message.
    """
    words = [f"--config.{name}={value_text(value)}" for name, value in settings.items()]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{settings['run.dir']}/{settings['run.name']}: the run failed: {message}")
