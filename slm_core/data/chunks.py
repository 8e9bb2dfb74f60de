"""A source is read in chunks of about `CHUNK_BYTES`. Any process can read a chunk without the others."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from slm_core.data.split import LONG, Piece, block_count, block_size, block_start, blocks, document
from slm_core.data.text import check_utf8, encode_text, missing_field, record_text, unreadable
from slm_core.errors import UserError

CHUNK_BYTES = 4 * 1024 * 1024
"""Approximate size of a chunk, in bytes of input. One record or one row group may be longer."""

LONGEST_RECORD = 256 * 1024 * 1024
"""Bytes of the longest JSON line that is read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the source: its place, the name that messages use, its bytes, and its time of change in nanoseconds."""

    path: str
    name: str
    size: int
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Files:
    """Short text files, each of which is one document."""

    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def pieces(self) -> Iterator[Piece]:
        for entry in self.entries:
            with _open(entry) as file:
                text = file.read()
            check_utf8(text, entry.name, 0)
            yield from document(text)


@dataclass(frozen=True, slots=True)
class FileRange:
    """Blocks `first` to `stop` of one long text file."""

    entry: Entry
    first: int
    stop: int

    @property
    def size(self) -> int:
        block = block_size(self.entry.size)
        return min(self.stop * block, self.entry.size) - self.first * block

    def pieces(self) -> Iterator[Piece]:
        block = block_size(self.entry.size)
        with _open(self.entry) as file:

            def read(offset: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, offset)

            offset = block_start(read, self.entry.size, block, self.first)
            for piece in blocks(read, self.entry.size, self.first, self.stop):
                check_utf8(piece.text, self.entry.name, offset)
                offset += len(piece.text)
                yield piece


@dataclass(frozen=True, slots=True)
class Lines:
    """JSON records whose lines start in bytes `start` to `stop` of a file."""

    entry: Entry
    start: int
    stop: int
    field: str

    @property
    def size(self) -> int:
        return self.stop - self.start

    def pieces(self) -> Iterator[Piece]:
        with _open(self.entry) as file:
            at = self._first_line(file)
            while at < self.stop and (line := file.readline(LONGEST_RECORD)):
                if len(line) == LONGEST_RECORD:
                    raise UserError(
                        f"data.path: the JSON line at byte {at} of {self.entry.name} is longer than "
                        f"{LONGEST_RECORD >> 20} MiB; split it into several records"
                    )
                if line.strip():
                    check_utf8(line, self.entry.name, at)
                    where = f"the record at byte {at} of {self.entry.name}"
                    yield from document(record_text(line, self.field, where))
                at += len(line)

    def _first_line(self, file: BinaryIO) -> int:
        """Moves `file` to the first line that starts at or after `start`, and returns its offset."""
        at = max(self.start - 1, 0)
        file.seek(at)
        while self.start > 0 and at < self.stop and (rest := file.readline(CHUNK_BYTES)):
            at += len(rest)
            if rest.endswith(b"\n"):
                break
        return at


@dataclass(frozen=True, slots=True)
class Rows:
    """One row group of a Parquet file."""

    entry: Entry
    group: int
    field: str
    size: int

    def pieces(self) -> Iterator[Piece]:
        import pyarrow
        import pyarrow.parquet

        row = 0
        try:
            with pyarrow.parquet.ParquetFile(self.entry.path, pre_buffer=False) as file:
                for batch in file.iter_batches(256, [self.group], [self.field], use_threads=False):
                    for value in batch.column(0).to_pylist():
                        where = f"row {row} of row group {self.group} of {self.entry.name}"
                        yield from document(encode_text(value, self.field, where))
                        row += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise unreadable(self.entry.name, error) from None


Chunk = Files | FileRange | Lines | Rows
"""Each has `size`, its bytes of input, and `pieces()`, which reads its documents and blocks in order."""


def _open(entry: Entry) -> BinaryIO:
    try:
        return open(entry.path, "rb")
    except OSError as error:
        raise unreadable(entry.name, error) from None


def text_chunks(entries: list[Entry], alone: bool) -> Iterator[Files | FileRange]:
    """Cuts text files into chunks.

    Args:
      alone: the one file is the whole source; it is cut into blocks, whatever its size.
    """
    group: list[Entry] = []
    group_bytes = 0
    for entry in entries:
        if not entry.size:
            continue
        if alone or entry.size > LONG:
            if group:
                yield Files(tuple(group))
                group, group_bytes = [], 0
            yield from _file_ranges(entry)
            continue
        group.append(entry)
        group_bytes += entry.size
        if group_bytes >= CHUNK_BYTES or len(group) >= 1024:
            yield Files(tuple(group))
            group, group_bytes = [], 0
    if group:
        yield Files(tuple(group))


def _file_ranges(entry: Entry) -> Iterator[FileRange]:
    count, step = block_count(entry.size), max(CHUNK_BYTES // block_size(entry.size), 1)
    for first in range(0, count, step):
        yield FileRange(entry, first, min(first + step, count))


def line_chunks(entries: list[Entry], field: str) -> Iterator[Lines]:
    """Cuts JSON-lines files into chunks."""
    for entry in entries:
        for start in range(0, entry.size, CHUNK_BYTES):
            yield Lines(entry, start, min(start + CHUNK_BYTES, entry.size), field)


def row_chunks(entries: list[Entry], field: str) -> Iterator[Rows]:
    """Makes a chunk of each row group of Parquet files. Raises UserError for a file that is not Parquet."""
    import pyarrow
    import pyarrow.parquet

    for entry in entries:
        try:
            with pyarrow.parquet.ParquetFile(entry.path) as file:
                names, metadata = file.schema_arrow.names, file.metadata
                if field not in names:
                    raise missing_field(field, names, entry.name)
                sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        except (OSError, pyarrow.ArrowException) as error:
            raise unreadable(entry.name, error) from None
        for group, size in enumerate(sizes):
            yield Rows(entry, group, field, size)
