"""Unpacks what cannot be read from the middle into plain files: .gz files and Hugging Face datasets.

An interrupted call leaves finished files behind, and the next call continues after them.
"""

import gzip
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slm_core.config import Data
from slm_core.data.chunks import Entry
from slm_core.data.progress import Progress
from slm_core.data.text import encode_text, missing_field
from slm_core.errors import ResumableError, UserError

PART = 64 * 1024 * 1024
"""Bytes of text in one part of a Hugging Face dataset on the disk."""


def unpack(entries: list[Entry], folder: Path, progress: Progress) -> list[Entry]:
    """Unpacks every .gz file into `folder`. Returns `entries` with the copies in the place of those files."""
    packed = [entry for entry in entries if entry.name.endswith(".gz")]
    if not packed:
        return entries
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = []
    with progress.phase("unpacking", sum(entry.size for entry in packed)) as advance:
        for i, entry in enumerate(entries):
            if entry.name.endswith(".gz"):
                path = folder / f"{i:06d}"
                if not path.exists():
                    _gunzip(entry, path)
                advance(entry.size)
                entry = Entry(str(path), entry.name, path.stat().st_size)
            unpacked.append(entry)
    return unpacked


def _gunzip(entry: Entry, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with gzip.open(entry.path, "rb") as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"data.path: {entry.name} is a damaged gzip file ({error}); fetch it again") from None
    os.replace(temporary, path)


def fetch(data: Data, folder: Path, progress: Progress) -> list[Entry]:
    """Copies the text of a Hugging Face dataset's "train" split into JSON-lines files in `folder`.

    Raises:
      UserError: the library, the dataset or the text field is missing.
      ResumableError: the connection broke.
    """
    rows = _rows(data)
    folder.mkdir(parents=True, exist_ok=True)
    parts = sorted(folder.glob("part-*.jsonl"))
    done = sum(int(part.stem.split("-")[2]) for part in parts)
    if not (folder / "complete").exists():
        stream = iter(rows.skip(done) if done else rows)
        with progress.phase("fetching", None) as advance:
            while part := _part(stream, data, folder, len(parts), done, advance):
                parts.append(part)
                done += int(part.stem.split("-")[2])
        (folder / "complete").touch()
    return [Entry(str(part), f"{data.path}/{part.name}", part.stat().st_size) for part in parts]


def _part(
    stream: Iterator[dict[str, Any]], data: Data, folder: Path, index: int, done: int, advance: Callable[[int], None]
) -> Path | None:
    """Writes the next part, `part-<index>-<rows>.jsonl`; returns None at the end of the stream."""
    temporary, size, rows = folder / "part.tmp", 0, 0
    with open(temporary, "wb") as file:
        while size < PART:
            try:
                row = next(stream)
            except StopIteration:
                break
            except Exception as error:  # network libraries raise dozens of kinds
                raise ResumableError(
                    f"data.path={data.path!r}: reading stopped after {done} rows ({_brief(error)}); "
                    "run the same command again to continue"
                ) from None
            if data.text_field not in row:
                raise missing_field(data.text_field, row, data.path)
            text = encode_text(row[data.text_field], data.text_field, f"row {done + rows} of {data.path}")
            line = json.dumps({"text": text.decode()}, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            size, rows = size + len(line), rows + 1
            advance(len(line))
    if not rows:
        temporary.unlink()
        return None
    path = folder / f"part-{index:06d}-{rows}.jsonl"
    os.replace(temporary, path)
    return path


def _rows(data: Data) -> Any:
    """Opens the dataset: a folder of `save_to_disk`, or (streamed) another folder or a name on the Hub."""
    try:
        import datasets  # pyrefly: ignore[missing-import]  # an optional extra
    except ImportError:
        raise UserError("data.source='hf': the datasets library is missing; install it: uv sync --extra hf") from None
    folder = Path(data.path).expanduser()
    try:
        if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
            rows = datasets.load_from_disk(str(folder))
        else:
            rows = datasets.load_dataset(data.path, data.subset or None, streaming=True)
    except Exception as error:  # the library raises dozens of kinds
        raise UserError(
            f"data.path={data.path!r}: cannot open this dataset ({_brief(error)}); "
            "check the name, data.subset and the connection"
        ) from None
    if isinstance(rows, dict):
        if "train" not in rows:
            raise UserError(f"data.path={data.path!r}: it has no split named train, only {', '.join(rows)}")
        rows = rows["train"]
    return rows


def _brief(error: Exception) -> str:
    lines = itertools.chain(str(error).splitlines(), [""])
    return f"{type(error).__name__}: {next(lines).strip()}"[:200]
