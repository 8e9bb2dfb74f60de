"""Lists the files of a source in their order."""

import fnmatch
import glob
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from slm_core.config import Data
from slm_core.data.chunks import Entry
from slm_core.errors import UserError, nearest
from slm_core.files import walk

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def standard_library(data: Data) -> list[Entry]:
    """Lists the standard library without its tests, in the order of a hash of the name, so that subjects are mixed."""
    root = Path(sysconfig.get_path("stdlib"))
    entries = []
    for folder, folders, files in walk(root):
        folders[:] = [f for f in folders if f not in _SKIPPED and not f.startswith("config-")]
        for file in files:
            if file.endswith(".py") and not file.startswith("_sysconfigdata"):
                path = Path(folder, file)
                entries.append(_entry(path, path.relative_to(root).as_posix()))
    if not entries:
        raise UserError(
            f"data.source='stdlib': {root} holds no source files of Python {sys.version.split()[0]}; "
            "set data.source=text and data.path"
        )
    return sorted(entries, key=lambda entry: hashlib.blake2b(entry.name.encode(), digest_size=8).digest())


def local_dataset(data: Data) -> list[Entry]:
    """Lists the files of a dataset in a local folder; of a dataset on the Hub, none."""
    folder = Path(data.path).expanduser()
    return [_entry(path, path.name) for path in sorted(folder.rglob("*")) if path.is_file()]


def matching(data: Data, suffixes: tuple[str, ...]) -> list[Entry]:
    """Lists the file, the files that a glob matches, or those of a folder that have one of the suffixes.

    Raises:
      UserError: there is nothing, or nothing of the right kind, or nothing in it.
    """
    entries = _matching(data, suffixes)
    if not any(entry.size for entry in entries):
        raise UserError(f"data.path={data.path!r}: it is empty; give a source with text in it")
    return entries


def gzipped(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Returns these suffixes, and each of them with `.gz` behind it."""
    return (*suffixes, *(f"{suffix}.gz" for suffix in suffixes))


def _matching(data: Data, suffixes: tuple[str, ...]) -> list[Entry]:
    root = Path(data.path).expanduser()
    if root.is_file():
        return [_entry(root, data.path)]
    if root.is_dir():
        return _folder(data, root, suffixes)
    paths = sorted(Path(p) for p in glob.glob(str(root), recursive=True) if os.path.isfile(p))
    if not paths:
        is_pattern = glob.has_magic(data.path)
        siblings = [] if is_pattern or not root.parent.is_dir() else os.listdir(root.parent)
        problem = "no file matches it" if is_pattern else "there is no such file or folder"
        raise UserError(f"data.path={data.path!r}: {problem}; check the path{nearest(root.name, siblings)}")
    return [_entry(path, str(path)) for path in paths]


def _folder(data: Data, root: Path, suffixes: tuple[str, ...]) -> list[Entry]:
    entries = [_entry(path, str(path.relative_to(root))) for path in _files(root, suffixes)]
    if not entries:
        raise UserError(
            f"data.path={data.path!r}: the folder holds no file for data.source={data.source} "
            f"({' '.join(suffix for suffix in suffixes if not suffix.endswith('.gz'))}); name other files by a glob"
        )
    return sorted(entries, key=lambda entry: entry.name)


def _files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for folder, folders, files in walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        for file in files:
            path = Path(folder, file)
            known = any(fnmatch.fnmatch(file.lower(), f"*{suffix}") for suffix in suffixes)
            if known and not file.startswith(".") and path.is_file():
                yield path


def _entry(path: Path, name: str) -> Entry:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"data.path: cannot read {name} ({error.strerror}); check its permissions") from None
    return Entry(str(path.resolve()), name, stat.st_size, stat.st_mtime_ns)
