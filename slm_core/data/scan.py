"""The first pass over a source: checks every byte, counts, hashes the content, collects the characters."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from slm_core.data.progress import Progress
from slm_core.data.sources import Unit
from slm_core.data.workers import Workers


@dataclass(frozen=True)
class Scan:
    """What a source holds. `offsets[i]` is the first byte of text of unit i, counted over the whole source."""

    offsets: tuple[int, ...]
    total: int  # bytes of text
    documents: int
    content: str  # hash of the text and where its documents end
    characters: str  # sorted; empty when not asked for


def scan(units: list[Unit], characters: bool, journal: Path, workers: Workers, progress: Progress) -> Scan:
    """Reads every unit once. Goes on after the lines that an interrupted scan left in `journal`."""
    found = _read_journal(journal)[: len(units)]
    rest = units[len(found) :]
    with progress.phase("reading", sum(unit.size for unit in rest)) as advance, open(journal, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in found)
        results = workers.map(_scan_unit, ((unit, characters) for unit in rest))
        for unit, result in zip(rest, results, strict=True):
            file.write(json.dumps(result) + "\n")
            file.flush()
            found.append(result)
            advance(unit.size)
    return _total(found)


def _scan_unit(task: tuple[Unit, bool]) -> dict:
    unit, characters = task
    digest, total, documents = hashlib.blake2b(digest_size=16), 0, 0
    seen: set[str] = set()
    for piece in unit.pieces():
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


def _total(found: list[dict]) -> Scan:
    digest, offsets, total = hashlib.blake2b(digest_size=16), [], 0
    characters: set[str] = set()
    for unit in found:
        offsets.append(total)
        total += unit["bytes"]
        digest.update(unit["digest"].encode())
        characters.update(unit["characters"])
    documents = sum(unit["documents"] for unit in found)
    return Scan(tuple(offsets), total, documents, digest.hexdigest(), "".join(sorted(characters)))


def _read_journal(path: Path) -> list[dict]:
    """Returns the whole lines of a journal; a crash may have left half a line at its end."""
    found = []
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found
