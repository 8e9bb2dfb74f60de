"""Does faults of the machine to a training run, and looks at what it says and leaves.

As a script: `python -m tests.crashes.machine TWIN FOLDER` prints a row of JSON for each fault.
"""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from slm_core.files import lock_file
from tests.crashes.campaign import Campaign, Undisturbed, difference, half_made, wrong_end
from tests.crashes.commands import COMMANDS, Command, Work, contents
from tests.crashes.fork_server import CORE, Ended, Server

TRAIN = next(command for command in COMMANDS if command.name == "train")
Around = Callable[[Path], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault, each value of which is done to a run of its own.

    Args:
      before: a function of `faults` that the process calls first; "N" in it is a value.
      instead: a function of `faults` that is called before a file operation; the values are shares of all operations.
      around: makes the fault in the folder of the trial, and takes it away.
      reports: part of what is said; "": the run may go on without a word.
      cleans: what is left of a run that was removed, which a user has to remove before the same command begins anew.
      ends: exit codes of a process that a library, or the loader of libraries, ends.
      values: for N, or for the operation.
    """

    before: str = ""
    instead: str = ""
    around: Around | None = None
    reports: str = ""
    cleans: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    twins: tuple[str, ...] = ("torch", "flax")
    values: tuple[float, ...] = (0,)


@dataclass(frozen=True)
class Observed:
    """What a fault did: a row of docs/crashes.md.

    Args:
      reported: what the command said; "": nothing.
      left: "all" of what the command makes, "nothing" that counts, or a number of checkpoints.
      wrong: what should not be so; "": nothing.
    """

    fault: str
    command: str
    reported: str
    left: str
    wrong: str


class NotHere(Exception):
    """The fault cannot be made on this machine."""


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mounts something on a folder. Raises NotHere if this process may not."""
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", *options, folder], capture_output=True).returncode:
        raise NotHere("this process may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def small_disk(name: str, kilobytes: int) -> Around:
    """Puts a folder on a disk of so many kilobytes; what was written there is copied back when the disk goes away."""

    @contextlib.contextmanager
    def around(trial: Path) -> Iterator[None]:
        folder, kept = trial / name, trial.with_name(f"{trial.name}-kept")
        with mounted(folder, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"):
            yield
            shutil.copytree(folder, kept)
        shutil.copytree(kept, folder, dirs_exist_ok=True)

    return around


def read_only(name: str) -> Around:
    """Makes a folder read-only, for root as well."""

    @contextlib.contextmanager
    def around(trial: Path) -> Iterator[None]:
        folder = trial / name
        folder.mkdir(parents=True, exist_ok=True)
        with mounted(folder, "--bind", str(folder)):
            remounted = ["mount", "-o", "remount,ro,bind", folder]
            if subprocess.run(remounted, capture_output=True).returncode:
                raise NotHere("this process may not mount read-only")
            yield

    return around


@contextlib.contextmanager
def another_process(trial: Path) -> Iterator[None]:
    """Holds the lock of the run, as a second process that trains it does."""
    (trial / "models" / "run").mkdir(parents=True)
    with open(trial / "models" / "run" / ".lock", "w") as file:
        assert lock_file(file)
        yield


@contextlib.contextmanager
def stale_locks(trial: Path) -> Iterator[None]:
    """Leaves the lock files of processes that are gone."""
    for folder in ("models/run", "data/.locks"):
        (trial / folder).mkdir(parents=True)
    (trial / "models" / "run" / ".lock").write_text("1\n")
    yield


@contextlib.contextmanager
def a_file_for_a_folder(trial: Path) -> Iterator[None]:
    """Puts a file where the prepared text belongs."""
    (trial / "data").write_text("")
    yield
    (trial / "data").unlink()


SIZES = (20, 60, 120, 200, 300, 420)
MOMENTS = (0.35, 0.5, 0.65, 0.8, 0.95)

FAULTS: dict[str, Fault] = {
    **{f"disk of the runs full at {size} KB": Fault(around=small_disk("models", size)) for size in SIZES},
    **{f"disk of the data full at {size} KB": Fault(around=small_disk("data", size)) for size in (8, 40, 60)},
    "disk of the compile cache full": Fault("home_cache", around=small_disk("cache", 16), twins=("flax",)),
    "no file above a size (`ulimit -f`)": Fault("largest_file N", values=(500, 5000, 20_000, 50_000, 100_000)),
    "read-only folder of runs": Fault(around=read_only("models"), reports="ead-only"),
    "read-only folder of data": Fault(around=read_only("data"), reports="ead-only"),
    "a file for the folder of data": Fault(around=a_file_for_a_folder, reports="cannot write there"),
    "run removed meanwhile": Fault(instead="remove_run", cleans=("models",), values=MOMENTS),
    "run replaced meanwhile": Fault(instead="replace_run", cleans=("models",), values=MOMENTS),
    "data removed meanwhile": Fault(instead="remove_data", values=MOMENTS),
    "another process trains the run": Fault(around=another_process, reports="another process is training"),
    "a stale lock": Fault(around=stale_locks),
    "few open files (`ulimit -n`)": Fault("few_files N", values=tuple(range(1, 12))),
    "little memory (`ulimit -v`)": Fault("little_memory N", values=(5, 20, 60, 150, 400, 1000), ends=(-6, 127)),
    "no HOME, and a user without a name": Fault("no_home"),
    "no folder for temporary files": Fault("no_temporary_folder"),
    "compile cache that cannot be made": Fault("unwritable_cache", reports="JAX compiles anew", twins=("flax",)),
    "stdout closed": Fault("closed_output"),
    "output that nobody reads": Fault("output_without_reader", reports="its reader ended"),
    "reader of the output ends meanwhile": Fault(
        "piped_output", instead="end_reader", reports="its reader ended", values=(0.35, 0.65)
    ),
    "clock that moves back": Fault("clock_that_moves_back"),
}


def observe(
    campaign: Campaign, name: str, command: Command = TRAIN, values: Sequence[float] | None = None
) -> Iterator[Observed]:
    """Does a fault to a command for each of its values, takes the fault away, and runs the same command again."""
    fault, expected = FAULTS[name], campaign.undisturbed(command)
    for value in fault.values if values is None else values:
        trial = campaign.work.trial(command)
        kill = {"operation": int(value * expected.operations), "instead": fault.instead} if fault.instead else None
        with (fault.around or contextlib.nullcontext)(trial):
            ended = campaign.work.run(command, trial, kill, fault.before.replace("N", str(value)))
        yield _observed(campaign.work, name, command, trial, ended, expected)


def _observed(work: Work, name: str, command: Command, trial: Path, ended: Ended, expected: Undisturbed) -> Observed:
    fault, wrong = FAULTS[name], []
    aborted = ended.status in fault.ends  # then what is said is the library's
    if not aborted and (ended.status not in (0, 2) or "Traceback" in ended.errors):
        wrong.append(f"status {ended.status}: {ended.errors[-1500:]}")
    elif ended.status == 2 and sum(line.startswith("error: ") for line in ended.errors.splitlines()) != 1:
        wrong.append(f"not one error: {ended.errors[-600:]}")
    if fault.reports not in ended.errors:
        wrong.append(f"does not say {fault.reports!r}: {ended.errors[-600:]}")
    if half := half_made(trial):
        wrong.append(f"half-made {half}")
    if ended.status:
        for folder in fault.cleans:
            shutil.rmtree(trial / folder, ignore_errors=True)
    left = _left(trial, expected)
    if wrong_then := wrong_end(command, trial, work.run(command, trial), expected):
        wrong.append(f"then: {wrong_then}")
    said = "a library ends the process" if aborted else _said(ended.errors, trial)
    return Observed(name, command.name, said, left, "; ".join(wrong))


def _left(trial: Path, expected: Undisturbed) -> str:
    with contextlib.suppress(ValueError):  # a half-written line
        if not difference(contents(trial), expected.contents):
            return "all"
    checkpoints = len(list(trial.glob("models/run/checkpoints/step-*")))
    return f"{checkpoints} checkpoints" if checkpoints else "nothing"


_UNTOLD = ("prepared ", "hf: has no manifest", "thread '", "The global", "note: ", "skipping", "stack backtrace", " ")
"""Beginnings of lines that do not concern a fault, or with which Rust explains a panic."""


_GENERAL = {
    "step-[0-9]{8}": "step-N",
    "[0-9a-f]{12,64}": "...",
    "of [0-9]+ bytes": "of N bytes",
    r"\S*/(\S+\.py):[0-9]+: ": r"\1: ",
    "'jit_\\w+'": "'...'",
}


def _said(errors: str, trial: Path) -> str:
    """Leaves out of what was said what differs from run to run, and what was said before."""
    told = [line for line in errors.replace(f"{trial}/", "").splitlines() if line and not line.startswith(_UNTOLD)]
    for pattern, general in _GENERAL.items():
        told = [re.sub(pattern, general, line) for line in told]
    return "; ".join(dict.fromkeys(told))


def rows(twin: str, folder: Path, names: Sequence[str] = tuple(FAULTS)) -> Iterator[Observed]:
    """Does faults to runs of a twin. A fault that this machine cannot make is left out, and said on stderr."""
    with Server(twin, folder / "home") as server:
        campaign = Campaign(Work(folder, twin, server), 0)
        for name in names:
            for command in commands(twin, name):
                try:
                    yield from observe(campaign, name, command)
                except NotHere as error:
                    print(f"left out: {name}: {error}", file=sys.stderr)


def commands(twin: str, name: str) -> list[Command]:
    """Lists the commands to which a fault is done: training by either twin; and others, if it can be done to any."""
    fault = FAULTS[name]
    if twin != CORE:
        return [TRAIN] if twin in fault.twins else []
    anywhere = not (fault.around or fault.instead or len(fault.twins) == 1)
    return [command for command in COMMANDS if command.core and not command.before] if anywhere else []


if __name__ == "__main__":
    for row in rows(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] or tuple(FAULTS)):
        print(json.dumps({"twin": sys.argv[1]} | dataclasses.asdict(row)), flush=True)
