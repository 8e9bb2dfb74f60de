"""The sources of text: one line per kind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from slm_core.config import Data
from slm_core.data.chunks import Chunk, Entry, line_chunks, row_chunks, text_chunks
from slm_core.data.hashing import json_hash
from slm_core.data.progress import Progress
from slm_core.data.source_files import gzipped, local_dataset, matching, standard_library
from slm_core.data.unpack import fetch
from slm_core.errors import UserError

TEXT = (
    (".txt", ".text", ".md", ".rst", ".tex", ".org", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu")
    + (".java", ".kt", ".go", ".rs", ".rb", ".js", ".ts", ".lua", ".jl", ".r", ".sh", ".sql", ".html", ".css")
)  # fmt: skip
"""Suffixes of the text files that a folder stands for. A glob takes whatever it matches."""


class Source(NamedTuple):
    """A kind of source.

    Args:
      files: lists its files in their order.
      chunks: cuts its files, unpacked, into chunks.
      path: what data.path must be; "": this kind does not read it.
      fetch: copies the text of a dataset into plain files; None: its own files are read.
    """

    files: Callable[[Data], list[Entry]]
    chunks: Callable[[Data, list[Entry]], Iterator[Chunk]]
    path: str = "a file, a folder or a glob"
    fetch: Callable[[Data, Path, Progress], list[Entry]] | None = None


SOURCES = {
    "stdlib": Source(
        standard_library,
        lambda data, files: text_chunks(files, alone=False),
        path="",
    ),
    "text": Source(
        lambda data: matching(data, gzipped(TEXT)),
        lambda data, files: text_chunks(files, alone=len(files) == 1),
    ),
    "jsonl": Source(
        lambda data: matching(data, gzipped((".jsonl", ".ndjson"))),
        lambda data, files: line_chunks(files, data.text_field),
    ),
    "parquet": Source(
        lambda data: matching(data, (".parquet",)),
        lambda data, files: row_chunks(files, data.text_field),
    ),
    "hf": Source(
        local_dataset,
        lambda data, files: line_chunks(files, "text"),
        path="the name or folder of a dataset",
        fetch=fetch,
    ),
}
"""{data.source: how it is read}."""


def find_files(data: Data) -> list[Entry]:
    """Lists the files of the source in their order; of a dataset, the local ones, which its `fetch` reads.

    Raises:
      UserError: there is nothing, or nothing of the right kind.
    """
    source = SOURCES[data.source]
    if source.path and not data.path:
        raise UserError(f"data.path='': data.source={data.source} needs {source.path}")
    return source.files(data)


def files_signature(data: Data, entries: list[Entry]) -> str:
    """Makes a cheap hash of the paths, sizes and times of change of the source's files.

    It finds a prepared dataset without reading the source. A run identifies its data by the fingerprint instead, which
    is made from the content: a copy or a checkout with new times does not change it.
    """
    identity = [data.source, data.path if SOURCES[data.source].fetch else "", data.subset]
    files = [(entry.path, entry.size, entry.mtime_ns) for entry in entries]
    return json_hash(identity, files)


def source_chunks(data: Data, entries: list[Entry]) -> Iterator[Chunk]:
    """Cuts plain (unpacked) files into chunks."""
    return SOURCES[data.source].chunks(data, entries)


def source_name(data: Data) -> str:
    """Makes a readable name of the source, fit for a file name."""
    stem = Path(data.path.rstrip("/")).name.split(".")[0] if SOURCES[data.source].path else data.source
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")[:40] or data.source
    return f"{stem}-{data.tokenizer.split(':')[0]}"
