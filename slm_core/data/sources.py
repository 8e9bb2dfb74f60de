"""Lists the files of a source in their order, and cuts them into chunks."""

import fnmatch
import glob
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from slm_core.config import Data
from slm_core.data.chunks import Chunk, Entry, line_chunks, row_chunks, text_chunks
from slm_core.data.hashing import json_hash
from slm_core.errors import UserError, nearest

SUFFIXES = {
    "text": (".txt", ".text", ".md", ".rst", ".tex", ".org", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu")
    + (".java", ".kt", ".go", ".rs", ".rb", ".js", ".ts", ".lua", ".jl", ".r", ".sh", ".sql", ".html", ".css"),
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
}
"""{source: suffixes of the files that a folder stands for}. `.gz` may follow, except for Parquet.

A glob takes whatever it matches.
"""

_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def find_files(data: Data) -> list[Entry]:
    """Lists the files of the source in their order; of `hf`, those of a local dataset, which `unpack.fetch` reads.

    Raises:
      UserError: there is nothing, or nothing of the right kind.
    """
    if data.source == "stdlib":
        return _stdlib()
    if not data.path:
        remedy = "the name or folder of a dataset" if data.source == "hf" else "a file, a folder or a glob"
        raise UserError(f"data.path='': data.source={data.source} needs {remedy}")
    if data.source == "hf":
        folder = Path(data.path).expanduser()
        return [_entry(path, path.name) for path in sorted(folder.rglob("*")) if path.is_file()]
    entries = _matching(data)
    if not any(entry.size for entry in entries):
        raise UserError(f"data.path={data.path!r}: it is empty; give a source with text in it")
    return entries


def files_signature(data: Data, entries: list[Entry]) -> str:
    """Makes a cheap hash of the paths, sizes and times of change of the source's files.

    It finds a prepared dataset without reading the source. A run identifies its data by the fingerprint instead, which
    is made from the content: a copy or a checkout with new times does not change it.
    """
    identity = [data.source, data.path if data.source == "hf" else "", data.subset]
    files = [(entry.path, entry.size, entry.mtime_ns) for entry in entries]
    return json_hash(identity, files)


def source_chunks(data: Data, entries: list[Entry]) -> Iterator[Chunk]:
    """Cuts plain (unpacked) files into chunks."""
    if data.source == "jsonl":
        return line_chunks(entries, data.text_field)
    if data.source == "hf":
        return line_chunks(entries, "text")
    if data.source == "parquet":
        return row_chunks(entries, data.text_field)
    alone = data.source == "text" and len(entries) == 1
    return text_chunks(entries, alone)


def source_name(data: Data) -> str:
    """Makes a readable name of the source, fit for a file name."""
    stem = "stdlib" if data.source == "stdlib" else Path(data.path.rstrip("/")).name.split(".")[0]
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")[:40] or data.source
    return f"{stem}-{data.tokenizer.split(':')[0]}"


def _stdlib() -> list[Entry]:
    """Lists the standard library without its tests, in the order of a hash of the name, so that subjects are mixed."""
    root = Path(sysconfig.get_path("stdlib"))
    entries = []
    for folder, folders, files in os.walk(root):
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
    entries = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        for file in files:
            if not file.startswith(".") and any(fnmatch.fnmatch(file.lower(), pattern) for pattern in patterns):
                path = Path(folder, file)
                if path.is_file():
                    entries.append(_entry(path, str(path.relative_to(root))))
    if not entries:
        raise UserError(
            f"data.path={data.path!r}: the folder holds no file for data.source={data.source} "
            f"({' '.join(suffixes)}); name other files by a glob"
        )
    return sorted(entries, key=lambda entry: entry.name)


def _entry(path: Path, name: str) -> Entry:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"data.path: cannot read {name} ({error.strerror}); check its permissions") from None
    return Entry(str(path.resolve()), name, stat.st_size, stat.st_mtime_ns)
