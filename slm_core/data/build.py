"""Builds a dataset: unpack, scan, make the tokenizer, encode, write the manifest, rename.

Work happens in `<data.dir>/.partial/` and survives an interruption there. The dataset appears under its name by one
rename.
"""

import contextlib
import importlib.metadata
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from slm_core.config import Data
from slm_core.data.chunks import Chunk, Entry
from slm_core.data.dataset import FORMAT, TextDataset, add_signature, find_dataset, read_manifest, token_files
from slm_core.data.encode import Recipe, encode, smallest_dtype
from slm_core.data.hashing import json_hash
from slm_core.data.make_tokenizer import make_tokenizer
from slm_core.data.progress import Progress
from slm_core.data.scan import Scan, scan
from slm_core.data.sources import SOURCES, files_signature, find_files, source_chunks, source_name
from slm_core.data.split import SIDES, Rule, tail_boundary
from slm_core.data.tokenizers import Tokenizer
from slm_core.data.unpack import unpack
from slm_core.data.workers import Workers, cores
from slm_core.errors import ResumableError, UserError
from slm_core.files import sync, sync_tree
from slm_core.json_files import write_sealed
from slm_core.manifest import NAME, file_sums

MAX_WORKERS = 16
"""The largest number of processes: each takes up to 100 MB."""

_SMALL = {"byte": 48e6, "char": 24e6, "bpe": 4e6, "file": 4e6}  # bytes up to which one process is faster


def build(
    data: Data, entries: list[Entry], settings: dict[str, Any], signature: str, progress: Progress
) -> TextDataset:
    """Builds the dataset of a source, or finds one of the same content.

    Args:
      entries: the source's files.
      settings: what decides the tokens, beside the text.
      signature: the cheap hash that is to find the dataset next time.

    Raises:
      UserError: the source cannot be used; nothing of the work is kept.
      ResumableError: the same command can continue.
    """
    work = work_folder(data, signature)
    work.mkdir(parents=True, exist_ok=True)
    try:
        dataset = _build_in(work, data, entries, settings, signature, progress)
    except ResumableError:
        raise
    except UserError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return dataset


def work_folder(data: Data, signature: str) -> Path:
    """Returns the folder in which the dataset of a source is built."""
    return Path(data.dir) / ".partial" / f"{source_name(data)}-{signature[:12]}"


def _build_in(
    work: Path, data: Data, entries: list[Entry], settings: dict[str, Any], signature: str, progress: Progress
) -> TextDataset:
    start = time.monotonic()
    chunks = _chunks(work / "unpacked", data, entries, progress)
    with _workers(data, chunks) as workers:
        scanned = scan(chunks, data.tokenizer == "char", work / "scan.jsonl", workers, progress)
        if not scanned.total:
            raise UserError(f"data.path={data.path!r}: it holds no text; give a source with text in it")
        content = json_hash(settings, scanned.content)
        same = find_dataset(Path(data.dir), "contents", content)
        if same is not None:
            add_signature(same, signature)
            return TextDataset(same.folder)
        rule = Rule(data.split, data.val_fraction, tail_boundary(scanned.total, data.val_fraction))
        tokenizer, sample_bytes = make_tokenizer(work, data, chunks, scanned, rule, progress)
        recipe = Recipe(rule, work / "tokenizer", smallest_dtype(tokenizer.vocab_size), scanned.documents > 1)
        counts = encode(chunks, scanned, recipe, work, workers, progress)
    _check_unchanged(data, entries)
    _check_split(data, scanned, counts)
    _remove_all_but_tokens(work / "dataset", recipe.dtype)
    shutil.copytree(work / "tokenizer", work / "dataset" / "tokenizer")
    fingerprint = json_hash(content, _texts(work / "tokenizer"))[:16]
    found_by = {"fingerprint": fingerprint, "signatures": [signature], "contents": [content]}
    manifest = found_by | _manifest(data, settings, scanned, tokenizer, recipe, counts, sample_bytes)
    folder = _publish(work / "dataset", Path(data.dir) / f"{source_name(data)}-{fingerprint}", manifest)
    progress.say(_summary(folder, manifest, time.monotonic() - start))
    return TextDataset(folder)


def _chunks(unpacked: Path, data: Data, entries: list[Entry], progress: Progress) -> list[Chunk]:
    fetch = SOURCES[data.source].fetch
    files = fetch(data, unpacked, progress) if fetch else entries
    return list(source_chunks(data, unpack(files, unpacked, progress)))


def _workers(data: Data, chunks: list[Chunk]) -> Workers:
    small = sum(chunk.size for chunk in chunks) <= _SMALL[data.tokenizer.split(":")[0]]
    return Workers(1 if small else min(cores(), MAX_WORKERS))


def _manifest(
    data: Data,
    settings: dict[str, Any],
    scanned: Scan,
    tokenizer: Tokenizer,
    recipe: Recipe,
    counts: dict[str, int],
    sample_bytes: int | None,
) -> dict[str, Any]:
    counted = [f"{side}_{what}" for side in SIDES for what in ("tokens", "bytes")]
    return {
        "format": FORMAT,
        "source": {"kind": data.source, "path": data.path, "subset": data.subset, "text_field": data.text_field},
        "settings": settings,
        "vocab_size": tokenizer.vocab_size,
        "dtype": recipe.dtype,
        "end_of_document": tokenizer.end if recipe.separate else None,
        "counts": {"documents": scanned.documents, "bytes": scanned.total} | {name: counts[name] for name in counted},
        "bpe_sample_bytes": sample_bytes,
        "versions": _versions(),
    }


def _check_unchanged(data: Data, entries: list[Entry]) -> None:
    if files_signature(data, entries) != files_signature(data, find_files(data)):
        raise UserError(f"data.path={data.path!r}: its files changed while they were being prepared; run it again")


def _check_split(data: Data, scanned: Scan, counts: dict[str, int]) -> None:
    many = scanned.documents > 1
    none = f"none of its {scanned.documents} documents" if many else "no block of its one document"
    for side in SIDES:
        if not counts[f"{side}_bytes"]:
            raise UserError(
                f"data.path={data.path!r}: {none} falls into {side} (data.split={data.split}, "
                f"data.val_fraction={data.val_fraction}); set data.split=tail, change data.val_fraction or add text"
            )


def _remove_all_but_tokens(built: Path, dtype: str) -> None:
    """Removes what a process left that ended while it completed the folder: its table of files would list that, too."""
    for entry in built.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in token_files(dtype):
            entry.unlink()


def _publish(built: Path, folder: Path, manifest: dict[str, Any]) -> Path:
    """Makes everything durable, then gives the folder its name."""
    manifest["files"] = file_sums(built)
    write_sealed(built / NAME, manifest)
    sync_tree(built)
    try:
        os.rename(built, folder)
    except OSError:
        if folder.is_file():
            folder.unlink()
        if read_manifest(folder) is None:  # else the same content, prepared at the same time from another path
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(built, folder)
    sync(folder.parent)
    return folder


def _texts(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())]


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for package in ("numpy", "tokenizers", "pyarrow", "datasets"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _summary(folder: Path, manifest: dict[str, Any], seconds: float) -> str:
    counts = manifest["counts"]
    return (
        f"prepared {folder}: {counts['train_tokens']:,} train and {counts['validation_tokens']:,} validation tokens "
        f"of {manifest['vocab_size']:,} kinds, {counts['documents']:,} documents, in {seconds:.1f} s"
    )
