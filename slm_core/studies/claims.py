"""Claims on the runs of a study: several processes, or machines that share one folder, never do the same run twice.

A claim is a locked file that only one process can create. Its owner touches it while it works. A claim is dead when no
process on this machine holds its lock, or, if another machine made it, when nobody touched it for EXPIRES seconds.
Then another process creates the next generation of it, again a file that only one can create.
"""

import os
import socket
import time
import uuid
from pathlib import Path

from slm_core import files

EXPIRES = 120.0
"""Seconds after which a claim of another machine that nobody touches is dead."""

BEAT = 15.0
"""Seconds between two touches."""


class Claim:
    """A run that this process does. Call `beat` at least every EXPIRES seconds.

    Attributes:
      lock: the open file that holds the lock. A child process that inherits it keeps the claim alive.
    """

    def __init__(self, path: Path, lock: int):
        self.lock = lock
        self._path = path
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Says that the work goes on; cheap to call often."""
        if time.monotonic() - self._beaten > BEAT:
            self._beaten = time.monotonic()
            self._path.touch()

    def release(self) -> None:
        """Gives the run back, finished or not."""
        self._path.unlink(missing_ok=True)
        os.close(self.lock)


def claim(folder: Path, name: str) -> Claim | None:
    """Claims a run of the study in `folder`; None: another process has it."""
    claims = folder / ".claims"
    claims.mkdir(parents=True, exist_ok=True)
    generations = [int(path.suffix[1:]) for path in claims.glob(f"{name}.*") if path.suffix[1:].isdigit()]
    newest = max(generations, default=0)
    if newest and not _dead(claims, claims / f"{name}.{newest}"):
        return None
    made = _create(claims, claims / f"{name}.{newest + 1}")
    for generation in generations if made else ():
        (claims / f"{name}.{generation}").unlink(missing_ok=True)
    return made


def _create(claims: Path, path: Path) -> Claim | None:
    """Creates a claim that is locked from the first moment on: the file gets its name after it has its lock."""
    unnamed = claims / f".new-{uuid.uuid4().hex}"
    lock = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    try:
        os.write(lock, socket.gethostname().encode())
        files.lock_file(lock)
        os.link(unnamed, path)
    except FileExistsError:
        os.close(lock)
        return None
    finally:
        unnamed.unlink()
    return Claim(path, lock)


def _dead(claims: Path, path: Path) -> bool:
    try:
        file = path.open(errors="replace")
    except FileNotFoundError:
        return True
    with file:
        locked = files.lock_file(file, shared=True)
        if locked is False:
            return False
        # Without locks, a claim of this machine expires like those of other machines.
        here = locked and file.read() == socket.gethostname()
        return here or _now(claims) - os.fstat(file.fileno()).st_mtime > EXPIRES


def _now(claims: Path) -> float:
    """Returns the time by the clock of the file system, which two machines share."""
    probe = claims / f".now-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()
