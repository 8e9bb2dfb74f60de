"""Makes the config and weights of either twin from a Hugging Face checkpoint."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slm_core.config import Config
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.hf import family_of
from slm_core.hf.family import Family
from slm_core.hf.fields import Fields
from slm_core.hf.folder import SPECIAL, read_json, read_tensors
from slm_core.manifest import check_export

CONTEXT = 2048
"""Largest context of an imported model: the caches and tables of a run are made for all of it."""


@dataclass(frozen=True)
class Imported:
    """A checkpoint, as our config and its notes.

    Args:
      family: its family.
      config: our config, validated.
      vocab_size: rows of the embedding.
      tokens: the fields of SPECIAL that config.json has.
      notes: lines for the user.
    """

    family: Family
    config: Config
    vocab_size: int
    tokens: dict[str, Any]
    notes: list[str]


def read_config(folder: Path, context: int = 0) -> Imported:
    """Reads the config.json of a checkpoint.

    Args:
      context: tokens; 0: the checkpoint's, at most CONTEXT. A model with learned positions keeps its own.

    Raises:
      UserError: the schema cannot express a field, which is named.
    """
    values = read_json(folder / "config.json")
    values = values | values.get("text_config", {})
    family = family_of(str(values.get("model_type", "")))
    if values.get("quantization_config"):
        raise UserError("config.json: quantization_config is set: import an unquantised checkpoint")
    fields = Fields(values, family.model_type)
    config = family.read(fields)
    notes = []
    if unknown := fields.unread():
        notes.append(f"config.json: not read: {', '.join(unknown)}")
    longest = config.data.seq_len
    length = _context(config, context)
    if length < longest and not context:
        notes.append(f"context {length} of {longest}: --context={longest} for all of it")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, seq_len=length))
    validate(config)
    tokens = {name: values[name] for name in SPECIAL if name in values}
    return Imported(family, config, fields.need("vocab_size"), tokens, notes)


def _context(config: Config, context: int) -> int:
    longest = config.data.seq_len
    if config.model.position.kind == "learned":
        if context not in (0, longest):
            raise UserError(
                f"--context={context}: this model has a learned vector for each of {longest} positions; leave it out"
            )
        return longest
    if context > longest:
        raise UserError(f"--context={context}: this model is made for {longest} tokens at most")
    return context or min(longest, CONTEXT)


def convert(imported: Imported, tensors: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields our weights by canonical name, one rule's tensors in memory at a time.

    Raises:
      UserError: a tensor is missing, or no rule takes it.
    """
    family, names = imported.family, {}
    for name in tensors:
        names[name if name.startswith(family.prefix) else family.prefix + name] = name
        names[name] = name
    unused = family.unused(imported.config)
    left = {name for name in tensors if not name.endswith(family.ignored) and not name.startswith(unused)}
    for rule in family.rules(imported.config):
        for name in rule.hf_names:
            if name not in names:
                raise UserError(f"tensor {name}, which config.json calls for, is not in the checkpoint: restore it")
        left -= {names[name] for name in rule.hf_names}
        arrays = rule.layout.from_hf([tensors[names[name]] for name in rule.hf_names])
        yield from zip(rule.names, map(np.ascontiguousarray, arrays), strict=True)
    if imported.config.model.tie_embeddings:
        left = {name for name in left if name not in ("lm_head.weight", "embed_out.weight")}
    if left:
        raise UserError(
            f"tensor {min(left)} is not part of a {family.model_type} model with this config.json ({len(left)} such"
            " tensors): the folder is of another model"
        )


def open_folder(folder: Path, context: int = 0) -> tuple[Imported, Iterator[tuple[str, np.ndarray]]]:
    """Opens a checkpoint: its config, and its weights, which are read as they are iterated. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a Hugging Face checkpoint")
    check_export(folder)
    imported = read_config(folder, context)
    return imported, convert(imported, read_tensors(folder))
