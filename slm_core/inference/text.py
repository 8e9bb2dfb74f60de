"""Prepares the text that a run is evaluated on, in the run's own tokens."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from slm_core.config import Config, Data
from slm_core.config.fields import reads
from slm_core.config.validation import validate
from slm_core.data import Dataset, load_tokenizer, prepare
from slm_core.data.dataset import TextDataset
from slm_core.errors import UserError
from slm_core.runs.saved import SavedRun


def open_text(saved: SavedRun, given: Mapping[str, Any], seq_len: int) -> Dataset:
    """Prepares the text to evaluate a run on.

    Args:
      given: fields of the config's data section that name a text. {}: the text that the run was trained on; for an
        imported run, the standard library's source.
      seq_len: tokens per window.

    Raises:
      UserError: the text cannot be prepared, or the run's tokenizer cannot read it.
    """
    if given.get("source") == "task":
        raise UserError("--source=task: a task is for the runs that were trained on it; leave the flag out")
    base = Data(dir=saved.config.data.dir) if "source" in given else saved.config.data
    data = replace(base, seq_len=seq_len, packing="stream", **given)
    if not given and saved.imported is None:
        return _trained_text(saved, data)
    return _other_text(saved, replace(data, tokenizer=run_tokenizer(saved), vocab_size=Data().vocab_size), given)


def _trained_text(saved: SavedRun, data: Data) -> Dataset:
    dataset = prepare(data)
    if dataset.fingerprint != saved.fingerprint:
        raise UserError(
            f"data.source={data.source!r}: the text changed since {saved.folder} was trained on it (fingerprint "
            f"{saved.fingerprint}, now {dataset.fingerprint}); to evaluate on what it is now, give --source"
        )
    return dataset


def _other_text(saved: SavedRun, data: Data, given: Mapping[str, Any]) -> Dataset:
    if not data.path and reads(data, "path"):
        raise UserError(f"data.source={data.source!r} reads a path: give --path=FILE_FOLDER_OR_GLOB")
    data = replace(data, document_mask=False)
    validate(Config(data=data), [f"data.{name}" for name in given])
    dataset = prepare(data)
    masks = saved.config.data.document_mask and isinstance(dataset, TextDataset)
    if masks and dataset.manifest["end_of_document"] is not None:
        dataset.tell_documents_apart(replace(data, document_mask=True))
    if dataset.vocab_size > saved.vocab_size:
        raise UserError(
            f"{saved.folder}: its tokenizer has {dataset.vocab_size} tokens and its model {saved.vocab_size}; restore "
            "the tokenizer that the model was trained with"
        )
    return dataset


def run_tokenizer(saved: SavedRun) -> str:
    """Returns the value of data.tokenizer that means a run's own tokenizer. Raises UserError if there is none."""
    kind = load_tokenizer(saved.folder / "tokenizer").kind
    own = {"char": "the characters of its own text (data.tokenizer='char')", "words": "the words of its own task"}
    if kind in own:
        raise UserError(
            f"{saved.folder}: its tokens are {own[kind]}, so it can be evaluated on that alone; leave out the flags "
            "that name another"
        )
    return kind if kind == "byte" else f"file:{saved.folder / 'tokenizer' / 'tokenizer.json'}"
