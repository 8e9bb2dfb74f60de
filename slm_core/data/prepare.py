"""Finds a prepared dataset, or builds it: unpack, scan, tokenizer, encode, manifest, rename.

A dataset is looked up by a cheap signature (paths, sizes and times of the source's files, and the settings), then by a
hash of its content, which the scan gives, and only then built. Work happens in `<data.dir>/.partial/`, survives an
interruption there, and appears under its name by one rename; a lock lets one process at a time prepare one source.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from slm_core.config import Data
from slm_core.data import sources
from slm_core.data.chunks import Chunk, Entry
from slm_core.data.dataset import FORMAT, Dataset, read_manifest
from slm_core.data.encode import Recipe, encode, smallest_dtype
from slm_core.data.pipeline import open_windows
from slm_core.data.progress import Progress
from slm_core.data.sample import SAMPLE, Sample
from slm_core.data.scan import Scan, scan
from slm_core.data.split import SIDES, Rule, tail_boundary
from slm_core.data.tokenizers import Byte, Char, Tokenizer, load_tokenizer, open_tokenizer, save_tokenizer, train_bpe
from slm_core.data.unpack import fetch, unpack
from slm_core.data.workers import Workers, cores
from slm_core.errors import ResumableError, UserError
from slm_core.files import sync, sync_tree

MAX_WORKERS = 16
"""Processes at most: each holds up to 100 MB."""

_SMALL = {"byte": 48e6, "char": 24e6, "bpe": 4e6, "file": 4e6}  # bytes up to which one process is faster


def prepare(data: Data, progress: bool = True) -> Dataset:
    """Returns the prepared dataset of a source, building it where it is not there yet.

    Args:
      data: the `data` section of a config.
      progress: show on stderr how far it is.

    Raises:
      UserError: the source is missing, empty, unreadable, not text, or too short for `data.seq_len`.
    """
    show = Progress(progress)
    entries = sources.find(data)
    settings = _settings(data)
    signature = _hash(settings, data.text_field, sources.signature(data, entries))
    root = Path(data.dir)
    dataset = _find(root, "signatures", signature)
    if dataset is None:
        with _writable(root), _lock(root, signature, show):
            dataset = _find(root, "signatures", signature) or _build(data, entries, settings, signature, show)
    for side in SIDES:
        open_windows(dataset, side, data.seq_len)
    return dataset


def _settings(data: Data) -> dict:
    """What decides the tokens beside the text itself."""
    settings = {"format": FORMAT, "tokenizer": data.tokenizer, "split": data.split, "val_fraction": data.val_fraction}
    if data.tokenizer == "bpe":
        settings["vocab_size"] = data.vocab_size
    if data.tokenizer.startswith("file:"):
        open_tokenizer(data.tokenizer[5:])
        settings["tokenizer"] = "file:" + _hash(Path(data.tokenizer[5:]).expanduser().read_text(encoding="utf-8"))
    return settings


def _find(root: Path, key: str, value: str) -> Dataset | None:
    """Returns the dataset in `root` whose manifest has `value` in its list `key`."""
    for path in sorted(root.glob("*/manifest.json")):
        manifest = read_manifest(path.parent)
        if manifest and value in manifest[key]:
            return Dataset(path.parent)
    return None


def _build(data: Data, entries: list[Entry], settings: dict, signature: str, show: Progress) -> Dataset:
    work = Path(data.dir) / ".partial" / f"{sources.name(data)}-{signature[:12]}"
    work.mkdir(parents=True, exist_ok=True)
    try:
        dataset = _build_in(work, data, entries, settings, signature, show)
    except ResumableError:
        raise
    except UserError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return dataset


def _build_in(work: Path, data: Data, entries: list[Entry], settings: dict, signature: str, show: Progress) -> Dataset:
    start = time.monotonic()
    plain = fetch(data, work / "unpacked", show) if data.source == "hf" else entries
    plain = unpack(plain, work / "unpacked", show)
    chunks = list(sources.chunks(data, plain))
    kind = data.tokenizer.split(":")[0]
    small = sum(chunk.size for chunk in chunks) <= _SMALL[kind]
    with Workers(1 if small else min(cores(), MAX_WORKERS)) as workers:
        scanned = scan(chunks, kind == "char", work / "scan.jsonl", workers, show)
        if not scanned.total:
            raise UserError(f"data.path={data.path!r}: it holds no text; give a source with text in it")
        content = _hash(settings, scanned.content)
        known = _find(Path(data.dir), "contents", content)
        if known is not None:
            _add_signature(known, signature)
            return Dataset(known.folder)
        rule = Rule(data.split, data.val_fraction, tail_boundary(scanned.total, data.val_fraction))
        tokenizer, sampled = _tokenizer(work, data, chunks, scanned, rule, show)
        recipe = Recipe(rule, work / "tokenizer", smallest_dtype(tokenizer.vocab_size), scanned.documents > 1)
        counts = encode(chunks, scanned, recipe, work, workers, show)
    _check_unchanged(data, entries)
    _check_split(data, scanned, counts)
    shutil.copytree(work / "tokenizer", work / "dataset" / "tokenizer", dirs_exist_ok=True)
    fingerprint = _hash(content, _content_of(work / "tokenizer"))[:16]
    kept = [f"{side}_{what}" for side in SIDES for what in ("tokens", "bytes")]
    manifest = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "source": {"kind": data.source, "path": data.path, "subset": data.subset, "text_field": data.text_field},
        "settings": settings,
        "signatures": [signature],
        "contents": [content],
        "vocab_size": tokenizer.vocab_size,
        "dtype": recipe.dtype,
        "end_of_document": tokenizer.end if recipe.separate else None,
        "counts": {"documents": scanned.documents, "bytes": scanned.total} | {key: counts[key] for key in kept},
        "bpe_sample_bytes": sampled,
        "versions": _versions(),
    }
    folder = _publish(work / "dataset", Path(data.dir) / f"{sources.name(data)}-{fingerprint}", manifest)
    show.say(_summary(folder, manifest, time.monotonic() - start))
    return Dataset(folder)


def _tokenizer(
    work: Path, data: Data, chunks: list[Chunk], scanned: Scan, rule: Rule, show: Progress
) -> tuple[Tokenizer, int | None]:
    """Makes the tokenizer in `work`/tokenizer, or loads the one that an interrupted preparation left there."""
    folder, note = work / "tokenizer", work / "tokenizer.json"
    if folder.exists():
        return load_tokenizer(folder), json.loads(note.read_text())
    sampled = None
    if data.tokenizer == "byte":
        tokenizer = Byte()
    elif data.tokenizer == "char":
        tokenizer = Char("\0" * (scanned.documents > 1) + scanned.characters)
    elif data.tokenizer == "bpe":
        tokenizer, sampled = _bpe(data, chunks, scanned, rule, show)
    else:
        tokenizer = open_tokenizer(data.tokenizer[5:])
    note.write_text(json.dumps(sampled))
    temporary = work / "tokenizer.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    save_tokenizer(tokenizer, temporary)
    os.replace(temporary, folder)
    return tokenizer, sampled


def _bpe(data: Data, chunks: list[Chunk], scanned: Scan, rule: Rule, show: Progress) -> tuple[Tokenizer, int]:
    sample = Sample(chunks, scanned, rule)
    with show.phase("learning", min(scanned.total, SAMPLE)) as advance:
        tokenizer = train_bpe(sample.texts(advance), data.vocab_size)
    if not sample.complete:
        show.say(f"trained the tokenizer on a sample of {sample.size / 1e6:,.0f} of {scanned.total / 1e6:,.0f} MB")
    if tokenizer.vocab_size < data.vocab_size:
        show.say(f"note: the text gives a vocabulary of {tokenizer.vocab_size}, not data.vocab_size={data.vocab_size}")
    return tokenizer, sample.size


def _check_unchanged(data: Data, entries: list[Entry]) -> None:
    if sources.signature(data, entries) != sources.signature(data, sources.find(data)):
        raise UserError(f"data.path={data.path!r}: its files changed while they were being prepared; run it again")


def _check_split(data: Data, scanned: Scan, counts: dict[str, int]) -> None:
    for side in SIDES:
        if not counts[f"{side}_bytes"]:
            many = scanned.documents > 1
            none = f"none of its {scanned.documents} documents" if many else "no block of its one document"
            raise UserError(
                f"data.path={data.path!r}: {none} falls into {side} (data.split={data.split}, "
                f"data.val_fraction={data.val_fraction}); set data.split=tail, change data.val_fraction or add text"
            )


def _publish(built: Path, folder: Path, manifest: dict) -> Path:
    """Makes everything durable, then gives the folder its name."""
    with open(built / "manifest.json", "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2, ensure_ascii=False)
        file.write("\n")
    sync_tree(built)
    try:
        os.rename(built, folder)
    except OSError:
        if read_manifest(folder) is None:  # else the same content, prepared at the same time from another path
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(built, folder)
    sync(folder.parent)
    return folder


def _add_signature(dataset: Dataset, signature: str) -> None:
    manifest = dataset.manifest | {"signatures": [*dataset.manifest["signatures"][-15:], signature]}
    temporary = dataset.folder / f"manifest.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, dataset.folder / "manifest.json")


@contextlib.contextmanager
def _lock(root: Path, signature: str, show: Progress) -> Iterator[None]:
    """Waits until no other process prepares this source."""
    (root / ".locks").mkdir(parents=True, exist_ok=True)
    with open(root / ".locks" / signature[:12], "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            show.say("another process is preparing this dataset; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        raise UserError(
            f"data.dir={str(root)!r}: cannot write there ({error.strerror}); make room or set another data.dir, "
            "then run the same command again to go on"
        ) from None


def _content_of(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())]


def _hash(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": sys.version.split()[0]}
    for package in ("numpy", "tokenizers", "pyarrow", "datasets"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _summary(folder: Path, manifest: dict, seconds: float) -> str:
    counts = manifest["counts"]
    return (
        f"prepared {folder}: {counts['train_tokens']:,} train and {counts['validation_tokens']:,} validation tokens "
        f"of {manifest['vocab_size']:,} kinds, {counts['documents']:,} documents, in {seconds:.1f} s"
    )
