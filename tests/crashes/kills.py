"""Kills a process at a chosen file operation or after a chosen time, and says where the kill fell.

`arm` runs in the process that is to die. It dies by a signal, so nothing of Python's cleanup runs: no `finally`, no
`atexit`, no flush of a file. What it leaves on the disk is what SIGKILL would leave.
"""

import faulthandler
import json
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crashes import faults

OPERATIONS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
"""Audit events (https://docs.python.org/3/library/audit_events.html) that count as file operations. `os.replace` is
an `os.rename`, and `os.unlink` an `os.remove`."""


@dataclass(frozen=True)
class Kill:
    """Where a process is to die: before its file operation number `operation` (from 0), or after `seconds`.

    Args:
      instead: a function of `faults` that is called before the operation; the process does not die then.
    """

    operation: int | None = None
    seconds: float | None = None
    instead: str = ""


class Operations:
    """Counts the operations of this process on files inside a folder, and dies before a chosen one.

    `os.remove` by `shutil.rmtree` names a file without its folder; any relative path counts as one inside.
    """

    def __init__(self, folder: Path, kill: Kill, report: int):
        self.folder, self.kill, self.report, self.count = str(folder), kill, report, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        if path.startswith("/") and not path.startswith(self.folder):
            return
        self.count += 1
        if self.count - 1 == self.kill.operation:
            self._die(event, arguments, path)

    def _die(self, event: str, arguments: tuple[Any, ...], path: str) -> None:
        if self.kill.instead:
            getattr(faults, self.kill.instead)()
            return
        place = {"operation": _named(event, arguments), "path": os.path.relpath(path, self.folder)}
        threads = [_stack(frame) for frame in sys._current_frames().values()]
        os.write(self.report, json.dumps(place | {"threads": threads}).encode())
        os.kill(os.getpid(), signal.SIGKILL)


def arm(kill: Kill, folder: Path, report: Path) -> Operations:
    """Makes this process die as `kill` says. Where it died is written to `report`.

    Args:
      folder: the operations on files inside it count.

    Returns:
      The counter of the operations, for a process that lives on.
    """
    handle = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    operations = Operations(folder, kill, handle)
    sys.addaudithook(operations)
    if kill.seconds is not None:
        # Python's C code writes where it is; then the signal does what it does by default, and ends the process.
        faulthandler.register(signal.SIGALRM, file=handle, all_threads=True, chain=True)
        signal.setitimer(signal.ITIMER_REAL, max(kill.seconds, 1e-4))
    return operations


def _named(event: str, arguments: tuple[Any, ...]) -> str:
    if event != "open":
        return event.removeprefix("os.")
    return "open to write" if arguments[2] & (os.O_WRONLY | os.O_RDWR) else "open to read"


def _stack(frame: Any) -> list[list[str]]:
    stack = []
    while frame:
        stack.append([frame.f_code.co_filename, frame.f_code.co_name])
        frame = frame.f_back
    return stack


@dataclass(frozen=True)
class Place:
    """Where a kill fell.

    Args:
      phase: of `PHASES`, or "start and end".
      operation: the file operation before which it fell; "": it fell by time.
      path: the file's path, with N for each number.
    """

    phase: str
    operation: str = ""
    path: str = ""


PHASES = (
    ("prune", "slm_core/runs/checkpoints.py", "remove_old"),
    ("import", "scripts/convert.py", "_import"),
    ("export", "scripts/convert.py", "_export"),
    ("save", "slm_core/training/loop.py", "_save"),
    ("save", "slm_core/runs/checkpoints.py", "save_checkpoint"),
    ("evaluation", "slm_core/training/loop.py", "_evaluate"),
    ("sample", "slm_core/training/loop.py", "_sample"),
    ("evaluation", "scripts/evaluate.py", "_evaluate"),
    ("sample", "scripts/generate.py", "run"),
    ("preparation", "slm_core/data/prepare.py", "prepare_text"),
    ("update", "slm_core/training/loop.py", "_updates"),
)
"""(phase, file, function): the first row whose function is on the stack of any thread names the phase."""

ALL = ("first step", *dict.fromkeys(phase for phase, _, _ in PHASES))
"""The phases that a harness must reach. "first step" is an update of a process before its first line of metrics."""


def read_place(report: Path, first_step: bool) -> Place:
    """Reads what a process wrote as it died.

    Args:
      first_step: whether it had completed no update yet.
    """
    text = report.read_text(errors="replace")
    if text.startswith("{"):
        told = json.loads(text)
        threads, operation, path = told["threads"], told["operation"], re.sub("[0-9a-f]{6,}|[0-9]+", "N", told["path"])
    else:
        blocks = re.split(r"(?:Current thread|Thread) 0x", text)
        threads, operation, path = [re.findall(r'File "(.*?)", line \d+ in (\S+)', each) for each in blocks], "", ""
    functions = {(file, name) for thread in threads for file, name in thread}
    found = (p for p, file, name in PHASES if any(at.endswith(file) and name == inside for at, inside in functions))
    phase = next(found, "start and end")
    return Place("first step" if phase == "update" and first_step else phase, operation, path)
