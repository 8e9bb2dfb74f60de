"""Finds a prepared dataset, or builds it.

A cheap signature comes first: the settings, and the paths, sizes and times of the source's files. If it finds nothing,
the source is read, and a hash of its content may find the dataset. Only then is it built. A lock lets one process at a
time prepare one source.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm_core.config import Data
from slm_core.data.build import build, work_folder
from slm_core.data.dataset import FORMAT, Dataset, TextDataset, find_dataset
from slm_core.data.hashing import json_hash
from slm_core.data.progress import Progress
from slm_core.data.sources import files_signature, find_files
from slm_core.data.split import SIDES
from slm_core.data.task_data import TaskData
from slm_core.data.tokenizers import open_tokenizer
from slm_core.errors import UserError
from slm_core.files import lock_file

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def prepare(data: Data, progress: bool = True) -> Dataset:
    """Opens the dataset of a source: the text of `prepare_text`, or a task, which needs no preparation."""
    return TaskData(data) if data.source == "task" else prepare_text(data, progress)


def prepare_text(data: Data, progress: bool = True) -> TextDataset:
    """Opens the prepared text of a source; builds it if it is not there yet.

    Args:
      data: the `data` section of a config.
      progress: show on stderr how far the preparation is.

    Raises:
      UserError: the source is missing, empty, unreadable, not text, or too short for `data.seq_len`, or nothing tells
        its documents apart and `data.document_mask` or `data.packing` asks for it.
    """
    shown = Progress(progress)
    entries = find_files(data)
    settings = _settings(data)
    signature = json_hash(settings, data.text_field, files_signature(data, entries))
    root = Path(data.dir)
    dataset = find_dataset(root, "signatures", signature)
    if dataset is None:
        with _writable(root), _lock(root, signature, shown):
            dataset = find_dataset(root, "signatures", signature) or build(data, entries, settings, signature, shown)
    _remove_work(data, signature)
    train, _ = (dataset.tell_documents_apart(data).windows(side, data.seq_len) for side in SIDES)
    if data.packing == "documents":
        shown.say(f"data.packing=documents leaves out {train.left_out:.0%} of the training tokens: ends of documents")
    return dataset


def _settings(data: Data) -> dict[str, Any]:
    """Gathers what decides the tokens, beside the text itself."""
    settings = {"format": FORMAT, "tokenizer": data.tokenizer, "split": data.split, "val_fraction": data.val_fraction}
    if data.tokenizer == "bpe":
        settings["vocab_size"] = data.vocab_size
    if data.tokenizer.startswith("file:"):
        path = data.tokenizer.removeprefix("file:")
        open_tokenizer(path)
        settings["tokenizer"] = "file:" + json_hash(Path(path).expanduser().read_text(encoding="utf-8"))
    return settings


def _remove_work(data: Data, signature: str) -> None:
    """Removes what a process left that ended between giving the dataset its name and cleaning up."""
    work = work_folder(data, signature)
    if work.exists():
        with contextlib.suppress(OSError), open(Path(data.dir) / ".locks" / signature[:12], "w") as file:
            if lock_file(file) is not False:  # else a process is just building or cleaning up
                shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _lock(root: Path, signature: str, progress: Progress) -> Iterator[None]:
    """Waits until no other process prepares this source."""
    (root / ".locks").mkdir(parents=True, exist_ok=True)
    with open(root / ".locks" / signature[:12], "w") as file:
        if lock_file(file) is False:
            progress.say("another process is preparing this dataset; waiting for it")
            lock_file(file, wait=True)
        yield


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    """Turns a full disk, or a folder that cannot be written, into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise UserError(
            f"data.dir={str(root)!r}: cannot write there ({error.strerror}); make room or set another data.dir, "
            "then run the same command again to continue"
        ) from None
