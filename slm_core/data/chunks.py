"""Chunks of work: about `CHUNK_BYTES` bytes of a source, which any process can read alone, block by block."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from slm_core.data import split
from slm_core.data.split import Piece
from slm_core.errors import UserError, nearest

CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes of input that a chunk holds, about; one record or one row group may be longer."""

LONGEST_RECORD = 256 * 1024 * 1024
"""Bytes of the longest JSON line that is read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the source: where it is, what to call it, bytes, and time of change in nanoseconds."""

    path: str
    name: str
    size: int
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Files:
    """Short text files, a document each."""

    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def pieces(self) -> Iterator[Piece]:
        for entry in self.entries:
            with _open(entry) as file:
                text = file.read()
            check(text, entry.name, 0)
            yield from split.document(text)


@dataclass(frozen=True, slots=True)
class FileRange:
    """Blocks `first` to `stop` of one long text file."""

    entry: Entry
    first: int
    stop: int

    @property
    def size(self) -> int:
        block = split.block_size(self.entry.size)
        return min(self.stop * block, self.entry.size) - self.first * block

    def pieces(self) -> Iterator[Piece]:
        block = split.block_size(self.entry.size)
        with _open(self.entry) as file:

            def read(offset: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, offset)

            offset = split.block_start(read, self.entry.size, block, self.first)
            for piece in split.blocks(read, self.entry.size, self.first, self.stop):
                check(piece.text, self.entry.name, offset)
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
                    yield from split.document(self._text(line, at))
                at += len(line)

    def _first_line(self, file) -> int:
        """Moves `file` to the first line that starts at or after `start`, and returns its offset."""
        at = max(self.start - 1, 0)
        file.seek(at)
        while self.start > 0 and at < self.stop and (rest := file.readline(CHUNK_BYTES)):
            at += len(rest)
            if rest.endswith(b"\n"):
                break
        return at

    def _text(self, line: bytes, at: int) -> bytes:
        check(line, self.entry.name, at)
        where = f"the record at byte {at} of {self.entry.name}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"data.path: {where} is not JSON ({error}); give one JSON object a line") from None
        if not isinstance(record, dict):
            raise UserError(f"data.path: {where} is a JSON {type(record).__name__}; give one JSON object a line")
        if self.field not in record:
            raise UserError(missing_column(self.field, record, where))
        return encode_text(record[self.field], self.field, where)


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
                        yield from split.document(encode_text(value, self.field, where))
                        row += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise unreadable(self.entry.name, error) from None


Chunk = Files | FileRange | Lines | Rows


def unreadable(name: str, error: Exception) -> UserError:
    """Returns the error for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return UserError(f"data.path: cannot read {name} ({reason}); check the file and its permissions")


def missing_column(field: str, columns, where: str) -> str:
    """Returns the message for a text column that is not there."""
    found = ", ".join(sorted(map(str, columns))[:8]) or "nothing"
    return f"data.text_field={field!r}: {where} has no such field; it has {found}{nearest(field, map(str, columns))}"


def encode_text(value: object, field: str, where: str) -> bytes:
    """Returns the UTF-8 of one record's text (none for null). Raises UserError when it is not clean text."""
    if value is None:
        return b""
    if not isinstance(value, str):
        raise UserError(f"data.text_field={field!r}: it holds {type(value).__name__} in {where}; name a text field")
    try:
        text = value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"data.path: the text in {where} has half a surrogate pair; mend or drop the record") from None
    if b"\0" in text:
        raise UserError(f"data.path: the text in {where} has a NUL character; is it binary? Drop the record")
    return text


def check(text: bytes, name: str, offset: int) -> None:
    """Raises UserError unless `text`, which starts at byte `offset` of a file, is UTF-8 without NUL."""
    at = text.find(b"\0")
    if at >= 0:
        raise UserError(
            f"data.path: {name} is binary (a NUL at byte {offset + at}); give UTF-8 text or leave the file out"
        )
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.path: {name} is not UTF-8 (byte {offset + error.start} is 0x{text[error.start]:02x}); "
            "convert it to UTF-8 or leave the file out"
        ) from None


def _open(entry: Entry):
    try:
        return open(entry.path, "rb")
    except OSError as error:
        raise unreadable(entry.name, error) from None


def text_chunks(entries: list[Entry], alone: bool) -> Iterator[Files | FileRange]:
    """Cuts text files into chunks.

    Args:
      alone: the one file is the whole source; it is cut into blocks whatever its size.
    """
    group: list[Entry] = []
    held = 0
    for entry in entries:
        if not entry.size:
            continue
        if alone or entry.size > split.LONG:
            if group:
                yield Files(tuple(group))
                group, held = [], 0
            count, step = split.block_count(entry.size), max(CHUNK_BYTES // split.block_size(entry.size), 1)
            for first in range(0, count, step):
                yield FileRange(entry, first, min(first + step, count))
            continue
        group.append(entry)
        held += entry.size
        if held >= CHUNK_BYTES or len(group) >= 1024:
            yield Files(tuple(group))
            group, held = [], 0
    if group:
        yield Files(tuple(group))


def line_chunks(entries: list[Entry], field: str) -> Iterator[Lines]:
    """Cuts JSON-lines files into chunks."""
    for entry in entries:
        for start in range(0, entry.size, CHUNK_BYTES):
            yield Lines(entry, start, min(start + CHUNK_BYTES, entry.size), field)


def row_chunks(entries: list[Entry], field: str) -> Iterator[Rows]:
    """Cuts Parquet files into chunks: their row groups. Raises UserError for a file that is not Parquet."""
    import pyarrow
    import pyarrow.parquet

    for entry in entries:
        try:
            with pyarrow.parquet.ParquetFile(entry.path) as file:
                names, metadata = file.schema_arrow.names, file.metadata
                if field not in names:
                    raise UserError(missing_column(field, names, entry.name))
                groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        except (OSError, pyarrow.ArrowException) as error:
            raise unreadable(entry.name, error) from None
        for group, size in enumerate(groups):
            yield Rows(entry, group, field, size)
