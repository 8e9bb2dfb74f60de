"""Sources: from `config.data` to an ordered list of files, and from files to chunks."""

import fnmatch
import glob
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from slm_core.config import Data
from slm_core.data.chunks import Chunk, Entry, line_chunks, row_chunks, text_chunks
from slm_core.errors import UserError, nearest

SUFFIXES = {
    "text": (".txt", ".text", ".md", ".rst", ".tex", ".org", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu")
    + (".java", ".kt", ".go", ".rs", ".rb", ".js", ".ts", ".lua", ".jl", ".r", ".sh", ".sql", ".html", ".css"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
}
"""Files that a folder stands for, by source; `.gz` may follow, except for Parquet. A glob takes whatever it matches."""

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def find(data: Data) -> list[Entry]:
    """Lists the files of the source in their order; of `hf`, those of a local dataset, which `unpack.fetch` reads.

    Raises:
      UserError: nothing there, or nothing of the right kind.
    """
    if data.source == "stdlib":
        return _stdlib()
    if not data.path:
        wanted = "the name or folder of a dataset" if data.source == "hf" else "a file, a folder or a glob"
        raise UserError(f"data.path='': data.source={data.source} needs {wanted}")
    if data.source == "hf":
        folder = Path(data.path).expanduser()
        return [_entry(path, path.name) for path in sorted(folder.rglob("*")) if path.is_file()]
    entries = _matching(data)
    if not any(entry.size for entry in entries):
        raise UserError(f"data.path={data.path!r}: it is empty; give a source with text in it")
    return entries


def signature(data: Data, entries: list[Entry]) -> str:
    """Returns a cheap hash that changes when the source's files do: their paths, sizes and times of change.

    It finds a prepared dataset without reading the source. What identifies the data in a run is the fingerprint, made
    from content, which a copy or a checkout with new times leaves as it is.
    """
    identity = [data.source, data.path if data.source == "hf" else "", data.subset]
    files = [(entry.path, entry.size, entry.mtime_ns) for entry in entries]
    return hashlib.blake2b(json.dumps([identity, files]).encode(), digest_size=16).hexdigest()


def chunks(data: Data, entries: list[Entry]) -> Iterator[Chunk]:
    """Yields the chunks of plain (unpacked) files."""
    if data.source == "jsonl":
        return line_chunks(entries, data.text_field)
    if data.source == "hf":
        return line_chunks(entries, "text")
    if data.source == "parquet":
        return row_chunks(entries, data.text_field)
    alone = data.source == "text" and len(entries) == 1
    return text_chunks(entries, alone)


def name(data: Data) -> str:
    """Returns a readable name for the source, fit for a file name."""
    stem = "stdlib" if data.source == "stdlib" else Path(data.path.rstrip("/")).name.split(".")[0]
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")[:40] or data.source
    return f"{stem}-{data.tokenizer.split(':')[0]}"


def _stdlib() -> list[Entry]:
    """The standard library without its tests, in the order of a hash of the name, so that subjects are mixed."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in _SKIPPED and not f.startswith("config-")]
        for file in files:
            if file.endswith(".py") and not file.startswith("_sysconfigdata"):
                path = Path(folder, file)
                found.append(_entry(path, path.relative_to(root).as_posix()))
    if not found:
        raise UserError(
            f"data.source='stdlib': {root} holds no source files of Python {sys.version.split()[0]}; "
            "set data.source=text and data.path"
        )
    return sorted(found, key=lambda entry: hashlib.blake2b(entry.name.encode(), digest_size=8).digest())


def _matching(data: Data) -> list[Entry]:
    root = Path(data.path).expanduser()
    if root.is_file():
        return [_entry(root, data.path)]
    if root.is_dir():
        return _folder(data, root)
    paths = sorted(Path(p) for p in glob.glob(str(root), recursive=True) if os.path.isfile(p))
    if not paths:
        is_pattern = glob.has_magic(data.path)
        siblings = [] if is_pattern or not root.parent.is_dir() else os.listdir(root.parent)
        problem = "no file matches it" if is_pattern else "there is no such file or folder"
        raise UserError(f"data.path={data.path!r}: {problem}; check the path{nearest(root.name, siblings)}")
    return [_entry(path, str(path)) for path in paths]


def _folder(data: Data, root: Path) -> list[Entry]:
    suffixes = SUFFIXES[data.source]
    patterns = ["*" + s for s in suffixes] + ([] if data.source == "parquet" else [f"*{s}.gz" for s in suffixes])
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        for file in files:
            if not file.startswith(".") and any(fnmatch.fnmatch(file.lower(), pattern) for pattern in patterns):
                path = Path(folder, file)
                if path.is_file():
                    found.append(_entry(path, str(path.relative_to(root))))
    if not found:
        raise UserError(
            f"data.path={data.path!r}: the folder holds no file for data.source={data.source} "
            f"({' '.join(suffixes)}); name other files by a glob"
        )
    return sorted(found, key=lambda entry: entry.name)


def _entry(path: Path, name: str) -> Entry:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"data.path: cannot read {name} ({error.strerror}); check its permissions") from None
    return Entry(str(path.resolve()), name, stat.st_size, stat.st_mtime_ns)
