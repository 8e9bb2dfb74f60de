"""Writes files so that they survive a crash, sync first and rename last; and locks them, where that is possible."""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slm_core.logging import say_once

_LACKING = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""What a file system says that cannot lock, or cannot sync a folder: some network and container mounts."""


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's list of names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _LACKING or not path.is_dir():
            raise
    finally:
        os.close(handle)


def lock_file(file: int | IO, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Locks an open file until it is closed. Other processes are kept out, not other threads.

    Args:
      shared: several may hold it at once.
      wait: until the lock is free.

    Returns:
      True: it is locked. False: another process has it. None: the file system has no locks; the user is told once.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        say_once("this file system has no locks: let only one process at a time write to a run or a dataset")
        return None
    return True


def stamp(path: Path) -> tuple[int, ...]:
    """Returns what changes when a file is written: its size, its times and its place. Raises OSError as `stat`."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


@contextlib.contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Turns what a library in Rust says of the machine, "... (os error 28)", into the OSError that Python has for it.

    Args:
      path: the file that the library writes.
    """
    try:
        yield
    except Exception as error:
        code = re.search(r"\(os error ([0-9]+)\)", str(error))
        if code is None or isinstance(error, OSError):
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def walk(folder: Path, topdown: bool = True) -> Iterator[tuple[str, list[str], list[str]]]:
    """Does what `os.walk` does, but raises OSError for a folder that cannot be listed. One that is gone is left out."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    return os.walk(folder, topdown, fail)


def sync_tree(folder: Path) -> None:
    """Waits until everything inside a folder, and the folder itself, is on the disk."""
    for parent, _, names in walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def write_atomically(path: Path, text: str) -> None:
    """Writes a small text file. A reader, or a crash, finds the old text or the new one, never a part of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
