"""Reads a source for the second time: turns chunks into tokens in parallel, and appends these to files in order.

A journal names the chunks that are safely in those files. An interrupted call is continued after them.
"""

import contextlib
import functools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from slm_core.data.chunks import Chunk
from slm_core.data.progress import Progress
from slm_core.data.scan import Scan
from slm_core.data.split import SIDES, Rule
from slm_core.data.tokenizers import Tokenizer, load_tokenizer
from slm_core.data.workers import Workers
from slm_core.json_files import Count, Schema, read_line

_SEGMENT = 64 * 1024  # bytes of text given to a tokenizer at once, about
_COMMIT = 16  # chunks between commits to disk
_COUNTS = [f"{side}_{counted}" for side in SIDES for counted in ("stored", "bytes")]  # both in bytes


@dataclass(frozen=True)
class Recipe:
    """The settings by which a chunk becomes tokens. `separate`: a token ends each document."""

    rule: Rule
    tokenizer: Path
    dtype: str
    separate: bool


def smallest_dtype(vocab_size: int) -> str:
    """Names the smallest unsigned integer type that can hold the token ids."""
    return "uint8" if vocab_size <= 2**8 else "uint16" if vocab_size <= 2**16 else "uint32"


def encode(
    chunks: list[Chunk], scan: Scan, recipe: Recipe, work: Path, workers: Workers, progress: Progress
) -> dict[str, int]:
    """Writes `work`/dataset/{train,validation}.bin. Returns "train_tokens", "train_bytes", "validation_tokens", ..."""
    shards, target, journal = work / "shards", work / "dataset", work / "encoded.jsonl"
    shutil.rmtree(shards, ignore_errors=True)
    shards.mkdir()
    target.mkdir(exist_ok=True)
    done = _resume(target, journal)
    tasks = ((chunks[i], scan.offsets[i], recipe, shards / f"{i:08d}") for i in range(len(done), len(chunks)))
    with progress.phase("encoding", sum(chunk.size for chunk in chunks)) as advance:
        advance(sum(chunk.size for chunk in chunks[: len(done)]))
        results = workers.map(_encode_chunk, tasks)
        for result in _append(results, shards, target, journal, len(done)):
            advance(chunks[len(done)].size)
            done.append(result)
    counts = {name: sum(chunk[name] for chunk in done) for name in _COUNTS}
    size = np.dtype(recipe.dtype).itemsize
    return counts | {f"{side}_tokens": counts[f"{side}_stored"] // size for side in SIDES}


def _append(results: Iterator[dict], shards: Path, target: Path, journal: Path, first: int) -> Iterator[dict]:
    """Appends finished shards to the split's files; commits them now and then, and when it is interrupted."""
    pending: list[dict] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(target / f"{side}.bin", "ab")) for side in SIDES]
        stack.callback(lambda: _commit(files, journal, pending))
        for index, result in enumerate(results, first):
            for side, file in zip(SIDES, files, strict=True):
                shard = shards / f"{index:08d}.{side}"
                with open(shard, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
                shard.unlink()
            pending.append({"chunk": index} | result)
            if len(pending) == _COMMIT:
                _commit(files, journal, pending)
                pending.clear()
            yield result


def _commit(files: Sequence[BinaryIO], journal: Path, results: list[dict]) -> None:
    """Makes the split's files durable, then says so in the journal."""
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    with open(journal, "a") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
        file.flush()
        os.fsync(file.fileno())


class _Encoded(Schema):
    """A line of the journal."""

    chunk: Count
    train_stored: Count
    validation_stored: Count
    train_bytes: Count
    validation_bytes: Count


def _resume(target: Path, journal: Path) -> list[dict]:
    """Cuts the split's files and the journal back to the chunks that are whole in both. Returns those lines."""
    paths = [target / f"{side}.bin" for side in SIDES]
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    done, ends = [], [0, 0]
    for line in journal.read_bytes().split(b"\n") if journal.exists() else []:
        try:
            chunk = msgspec.structs.asdict(read_line(line, _Encoded))
        except ValueError:
            break
        if chunk["chunk"] != len(done):
            break
        after = [end + chunk[f"{side}_stored"] for end, side in zip(ends, SIDES, strict=True)]
        if any(end > size for end, size in zip(after, sizes, strict=True)):
            break
        done.append(chunk)
        ends = after
    for path, end in zip(paths, ends, strict=True):
        path.touch()
        os.truncate(path, end)
    journal.write_text("".join(json.dumps(chunk) + "\n" for chunk in done))
    return done


def _encode_chunk(task: tuple[Chunk, int, Recipe, Path]) -> dict:
    """Writes the tokens of one chunk into two shards. Returns the bytes of text and of tokens of each side."""
    chunk, offset, recipe, shard = task
    tokenizer = _tokenizer(recipe.tokenizer)
    outputs = [_Output(Path(f"{shard}.{side}"), tokenizer, recipe) for side in SIDES]
    current = outputs[0]
    for piece in chunk.pieces():
        for side, text in recipe.rule.sides(piece, offset):
            if outputs[side] is not current:
                current.flush()
                current = outputs[side]
            current.add(text)
        offset += len(piece.text)
        if piece.last:
            current.end_document()
    for output in outputs:
        output.close()
    stored = {f"{side}_stored": output.stored for side, output in zip(SIDES, outputs, strict=True)}
    return stored | {f"{side}_bytes": output.bytes for side, output in zip(SIDES, outputs, strict=True)}


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


class _Output:
    """Writes one side's shard: gathers text that belongs together, then writes its tokens."""

    def __init__(self, path: Path, tokenizer: Tokenizer, recipe: Recipe):
        self._file = path.open("wb")
        self._tokenizer = tokenizer
        self._dtype = np.dtype(recipe.dtype)
        self._end = b""
        if recipe.separate and tokenizer.end is not None:
            self._end = self._dtype.type(tokenizer.end).tobytes()
        self._text = bytearray()
        self.stored = self.bytes = 0

    def add(self, text: bytes) -> None:
        self._text += text
        if len(self._text) >= _SEGMENT:
            self.flush()

    def flush(self) -> None:
        if self._text:
            self.bytes += len(self._text)
            tokens = self._tokenizer.array(bytes(self._text))
            self.stored += self._file.write(tokens.astype(self._dtype, copy=False).tobytes())
            self._text.clear()

    def end_document(self) -> None:
        self.flush()
        self.stored += self._file.write(self._end)

    def close(self) -> None:
        self.flush()
        self._file.close()
