"""Kills commands of one twin again and again, runs each to its end, and compares that with an undisturbed one.

As a script: `python -m tests.crashes.campaign TWIN KILLS SEED FOLDER` prints a row of JSON for each kill.
"""

import contextlib
import dataclasses
import json
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_core.runs.checkpoints import checkpoint_step, list_checkpoints
from slm_core.runs.whole import examine
from tests.crashes.commands import COMMANDS, Command, Work, contents, damaged
from tests.crashes.fork_server import CORE, Ended, Server
from tests.crashes.kills import Place, read_place

DEATHS = (-signal.SIGKILL, -signal.SIGALRM)
"""How a process ends that was killed; a crash of a library is another signal."""

MOST = 4
"""Kills of one command before it may end."""


@dataclass(frozen=True)
class Killed:
    """A kill, and what came of it.

    Args:
      command: its name.
      place: where the kill fell.
      wrong: what was wrong after it, or at the end of the command; "": nothing.
    """

    command: str
    place: Place
    wrong: str = ""


@dataclass(frozen=True)
class Undisturbed:
    """A command that nobody kills: its end, how long it took, and how many file operations it made."""

    contents: dict[str, Any]
    seconds: float
    operations: int


class Campaign:
    """Kills the commands of a twin."""

    def __init__(self, work: Work, seed: int):
        self.work, self.random = work, random.Random(seed)
        self.expected: dict[str, Undisturbed] = {}

    def undisturbed(self, command: Command) -> Undisturbed:
        """Runs a command twice without a kill, when it is first asked for. Both ends must be equal."""
        if command.name not in self.expected:
            ends = []
            for _ in range(2):
                folder = self.work.trial(command)
                ended = self.work.run(command, folder)
                assert not ended.status, ended.errors
                assert not damaged(folder), damaged(folder)
                ends.append(Undisturbed(_end(folder, command, ended), ended.seconds, ended.operations))
            assert not difference(ends[1].contents, ends[0].contents), difference(ends[1].contents, ends[0].contents)
            self.expected[command.name] = ends[1]
        return self.expected[command.name]

    def kills(self, command: Command, count: int) -> Iterator[Killed]:
        """Kills a command `count` times, in as many trials as that takes."""
        while count > 0:
            killed = list(self.trial(command, min(count, self.random.randint(1, MOST))))
            count -= len(killed)
            yield from killed

    def trial(self, command: Command, most: int) -> Iterator[Killed]:
        """Runs a command from its beginning to its end, and kills it up to `most` times on the way."""
        expected, folder, places = self.undisturbed(command), self.work.trial(command), []
        for _ in range(most):
            begins_at = _saved(folder)
            ended = self.work.run(command, folder, self._kill(expected, bool(places)))
            if not self._was_killed(ended):
                break
            places.append(read_place(self.work.server.report, _last_line(folder) <= begins_at))
            if wrong := half_made(folder):
                yield Killed(command.name, places.pop(), wrong)
        else:
            ended = self.work.run(command, folder)
        wrong = wrong_end(command, folder, ended, expected)
        yield from (replace(Killed(command.name, place), wrong=wrong) for place in places)

    def _was_killed(self, ended: Ended) -> bool:
        """Tells whether a process ended by its kill.

        What writes the place of a timed kill reads the stacks of threads that run on, so it may crash. That ends the
        process as suddenly. A crash before it has begun is none of the harness.
        """
        report = self.work.server.report
        begun = report.exists() and report.stat().st_size > 0
        return ended.status in DEATHS or (ended.status == -signal.SIGSEGV and begun)

    def _kill(self, expected: Undisturbed, again: bool) -> dict[str, Any]:
        """Draws a kill. What goes on after one is shorter, so later ones come earlier."""
        share = self.random.random() * (0.6 if again else 1.0)
        if self.random.random() < 0.5:
            return {"operation": int(share * expected.operations)}
        return {"seconds": share * expected.seconds}


def difference(end: dict[str, Any], expected: dict[str, Any]) -> str:
    """Says in what two ends differ; "": in nothing."""
    if end.keys() != expected.keys():
        return f"files: {sorted(end.keys() ^ expected.keys())[:5]}"
    return ", ".join([name or "output" for name in end if end[name] != expected[name]][:5])


def campaign(twin: str, kills: int, seed: int, folder: Path) -> Iterator[Killed]:
    """Kills the commands of a twin `kills` times in all, in turn, each by its share."""
    commands = [command for command in COMMANDS if command.core or twin != CORE]
    done = dict.fromkeys(commands, 0)
    with Server(twin, folder / "home") as server:
        each = Campaign(Work(folder, twin, server), seed)
        while (total := sum(done.values())) < kills:
            command = min(commands, key=lambda command: done[command] / command.kills)
            killed = list(each.kills(command, min(MOST, kills - total)))
            done[command] += len(killed)
            yield from killed


def _end(folder: Path, command: Command, ended: Ended) -> dict[str, Any]:
    return contents(folder, ended if command.name == "generate" else None)


def wrong_end(command: Command, folder: Path, ended: Ended, expected: Undisturbed) -> str:
    """Says what is wrong with the end of a command that was killed before; "": nothing."""
    done_before = bool(command.taken) and ended.status == 2 and command.taken in ended.errors
    if ended.status and not done_before:
        return f"status {ended.status}: {ended.errors[-300:]}"
    if "damaged" in ended.errors or "Traceback" in ended.errors:
        return f"says {ended.errors[-300:]}"
    with contextlib.suppress(ValueError):
        if different := difference(_end(folder, command, ended), expected.contents):
            return f"differs: {different}"
        return "; ".join(damaged(folder)[:3])
    return "a file cannot be read"


def _saved(folder: Path) -> int:
    """Returns the step from which a run goes on; 0: it has no checkpoint."""
    checkpoints = list_checkpoints(folder / "models" / "run" / "checkpoints")
    return checkpoint_step(checkpoints[-1]) if checkpoints else 0


def _last_line(folder: Path) -> int:
    """Returns the step of the last whole line of metrics.jsonl; 0: there is none."""
    path = folder / "models" / "run" / "metrics.jsonl"
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return json.loads(whole[-1])["step"] if whole else 0


def half_made(folder: Path) -> str:
    """Says which checkpoint has its name and is not whole; "": none."""
    for checkpoint in (path for root in folder.glob("models/*/checkpoints") for path in list_checkpoints(root)):
        if wrong := examine(checkpoint):
            return f"{checkpoint.name}: {wrong[0]}"
    return ""


if __name__ == "__main__":
    for killed in campaign(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])):
        print(json.dumps({"twin": sys.argv[1]} | dataclasses.asdict(killed)), flush=True)
