"""Reads a source for the first time: checks every byte, counts, hashes the content, collects the characters."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from slm_core.data.chunks import Chunk
from slm_core.data.progress import Progress
from slm_core.data.workers import Workers
from slm_core.json_files import Count, Schema, read_line


@dataclass(frozen=True)
class Scan:
    """The contents of a source. `offsets[i]` is the first byte of text of chunk i, counted over the whole source."""

    offsets: tuple[int, ...]
    total: int  # bytes of text
    documents: int
    content: str  # hash of the text and where its documents end
    characters: str  # sorted; empty unless asked for


def scan(chunks: list[Chunk], characters: bool, journal: Path, workers: Workers, progress: Progress) -> Scan:
    """Reads every chunk once. Continues after the lines that an interrupted scan left in `journal`.

    Args:
      characters: whether to collect them.
    """
    lines = _read_journal(journal)[: len(chunks)]
    rest = chunks[len(lines) :]
    with progress.phase("reading", sum(chunk.size for chunk in rest)) as advance, open(journal, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        results = workers.map(_scan_chunk, ((chunk, characters) for chunk in rest))
        for chunk, result in zip(rest, results, strict=True):
            file.write(json.dumps(result) + "\n")
            file.flush()
            lines.append(result)
            advance(chunk.size)
    return _total(lines)


def _scan_chunk(task: tuple[Chunk, bool]) -> dict:
    chunk, characters = task
    digest, total, documents = hashlib.blake2b(digest_size=16), 0, 0
    seen: set[str] = set()
    for piece in chunk.pieces():
        digest.update(piece.text)
        if piece.block is not None:
            digest.update(b"\1")  # where blocks end decides the split
        total += len(piece.text)
        if piece.last:
            digest.update(b"\0")
            documents += 1
        if characters:
            seen.update(piece.text.decode("utf-8"))
    return {"bytes": total, "documents": documents, "digest": digest.hexdigest(), "characters": "".join(sorted(seen))}


def _total(lines: list[dict]) -> Scan:
    digest, offsets, total = hashlib.blake2b(digest_size=16), [], 0
    characters: set[str] = set()
    for line in lines:
        offsets.append(total)
        total += line["bytes"]
        digest.update(line["digest"].encode())
        characters.update(line["characters"])
    documents = sum(line["documents"] for line in lines)
    return Scan(tuple(offsets), total, documents, digest.hexdigest(), "".join(sorted(characters)))


class _Line(Schema):
    bytes: Count
    documents: Count
    digest: str
    characters: str


def _read_journal(path: Path) -> list[dict]:
    """Reads the whole lines of a journal; a crash may have left half a line at its end."""
    lines = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            lines.append(msgspec.structs.asdict(read_line(line, _Line)))
        except ValueError:
            break
    return lines
