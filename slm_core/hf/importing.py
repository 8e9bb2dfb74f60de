"""Makes the config and weights of either twin from a checkpoint in any form that can be imported."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from slm_core.config import Config
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.hf import adapter, family_of
from slm_core.hf.family import Family
from slm_core.hf.fields import text
from slm_core.hf.folder import SPECIAL, ReadBin, check_folder, read_json, read_tensors
from slm_core.hf.rules import Rule
from slm_core.hf.shapes import weight_shape
from slm_core.hf.tokenizer import import_tokenizer

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
    return config_of(read_json(folder / "config.json"), context)


def config_of(values: Mapping[str, Any], context: int = 0) -> Imported:
    """Does what `read_config` does, with the object of a config.json."""
    if "text_config" in values:
        raise UserError("config.json: text_config is set: the model reads more than text; import a text-only one")
    family = family_of(str(values.get("model_type", "")))
    fields = family.opened(values)
    config = family.read(fields)
    notes = []
    longest = config.data.seq_len
    length = _context(config, context)
    if length < longest and not context:
        notes.append(f"context {length} of {longest}: --context={longest} for all of it")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, seq_len=length))
    validate(config)
    return Imported(family, config, fields.get("vocab_size"), _special(values), notes)


def _special(values: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the ids of special tokens. Raises UserError for what is not an id, a list of ids or null."""
    tokens = {name: values[name] for name in SPECIAL if name in values}
    for name, value in tokens.items():
        for each in value if isinstance(value, list) else [value]:
            if not (each is None or (isinstance(each, int) and not isinstance(each, bool))):
                raise UserError(f"config.json: {name}={text(value)} is not the id of a token: restore the file")
    return tokens


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
      UserError: a tensor is missing or of another shape, or no rule takes it.
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
        arrays = _rearranged(imported, rule, [tensors[names[name]] for name in rule.hf_names])
        yield from zip(rule.names, arrays, strict=True)
    if imported.config.model.tie_embeddings:
        left -= _checked_copies(imported, names, tensors, left)
    if left:
        raise UserError(
            f"tensor {min(left)} is not part of a {family.model_type} model with this config.json ({len(left)} such"
            " tensors): the folder is of another model"
        )


def _rearranged(imported: Imported, rule: Rule, tensors: list[np.ndarray]) -> list[np.ndarray]:
    """Applies a rule. Raises UserError if the tensors do not have the shapes that config.json calls for."""
    shapes = [weight_shape(name, imported.config, imported.vocab_size) for name in rule.names]
    try:
        arrays = [np.ascontiguousarray(array) for array in rule.layout.from_hf(tensors)]
    except (ValueError, IndexError):  # it cannot be split or reordered
        arrays = []
    if [array.shape for array in arrays] == shapes:
        return arrays
    expected = rule.layout.to_hf([np.zeros(shape, np.int8) for shape in shapes])
    for name, tensor, right in zip(rule.hf_names, tensors, expected, strict=True):
        if tensor.shape != right.shape:
            raise UserError(
                f"tensor {name} has the shape {list(tensor.shape)}, and config.json calls for {list(right.shape)}:"
                " they are of different models"
            )
    raise UserError(f"tensor {rule.hf_names[0]} does not fit config.json: they are of different models")


HEADS = ("lm_head.weight", "embed_out.weight")


def _checked_copies(
    imported: Imported, names: Mapping[str, str], tensors: Mapping[str, np.ndarray], left: Collection[str]
) -> set[str]:
    """Returns the copies of a tied embedding. Raises UserError for a head that is another matrix."""
    copies = {name for name in left if name in HEADS}
    embed = next(rule.hf_names[0] for rule in imported.family.rules(imported.config) if rule.names == ("embed.weight",))
    for name in copies:
        if not np.array_equal(tensors[name], tensors[names[embed]]):
            raise UserError(
                f"tensor {name} differs from {embed}, but config.json has tie_word_embeddings=true, or leaves it out:"
                " set it to false if the head is a matrix of its own"
            )
    return copies


Items = Iterator[tuple[str, np.ndarray]]


def open_folder(folder: Path, context: int = 0, read_bin: ReadBin | None = None) -> tuple[Imported, Items]:
    """Opens a checkpoint: its config, and its weights, which are read as they are iterated. Raises UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a Hugging Face checkpoint")
    check_folder(folder)
    imported = read_config(folder, context)
    return imported, convert(imported, read_tensors(folder, read_bin))


def open_checkpoint(
    source: Path, context: int = 0, base: str = "", read_bin: ReadBin | None = None, as_lora: bool = False
) -> tuple[Imported, Items, Callable[[Path], str]]:
    """Opens a checkpoint in any form that can be imported.

    Args:
      source: a folder of a checkpoint, a folder of a PEFT adapter, or a GGUF file.
      base: the folder of the checkpoint that an adapter was trained on; "": the one that it names.
      read_bin: as in `read_tensors`.
      as_lora: whether an adapter stays beside the matrices, as LoRA of the run; if not, it is merged into them.

    Returns:
      The config; the weights; and what writes the tokenizer into a folder, and returns a note for the user or "".
    """
    if adapter.is_adapter(source):
        return _open_adapter(source, context, adapter.base_folder(source, base), read_bin, as_lora)
    if as_lora:
        raise UserError(f"--adapter=lora: {source} has no adapter_config.json, so it is no adapter: leave the flag out")
    if source.suffix == ".gguf":
        from slm_core.hf.gguf_file import open_gguf  # late, as an import of a plain folder does without
        from slm_core.hf.gguf_tokenizer import write_tokenizer

        file = open_gguf(source)
        imported, beside = config_of(file.values, context), (source.parent / "tokenizer.json").is_file()
        tokenizer = partial(import_tokenizer, source.parent) if beside else partial(write_tokenizer, file.keys)
        return imported, convert(imported, file.tensors), tokenizer
    return *open_folder(source, context, read_bin), partial(import_tokenizer, source)


def _open_adapter(
    source: Path, context: int, folder: Path, read_bin: ReadBin | None, as_lora: bool
) -> tuple[Imported, Items, Callable[[Path], str]]:
    from slm_core.hf.lora import adapters_of, finetune_of

    imported = read_config(folder, context)
    family, tied = imported.family, imported.config.model.tie_embeddings
    embedding = next(rule.hf_names[0] for rule in family.rules(imported.config) if rule.names == ("embed.weight",))
    opened = adapter.open_adapter(
        source, read_tensors(folder, read_bin), family.prefix, embedding if tied else "", read_bin
    )
    tokenizer = partial(import_tokenizer, source if (source / "tokenizer.json").is_file() else folder)
    if not as_lora:
        return imported, convert(imported, adapter.merged(opened, family.inputs_first)), tokenizer
    notes = [*imported.notes]
    if opened.whole:
        notes.append(f"{len(opened.whole)} tensors that were trained whole, such as {opened.whole[0]}, are frozen here")
    config = dataclasses.replace(imported.config, finetune=finetune_of(opened, family, imported.config))
    imported = dataclasses.replace(imported, config=config, notes=notes)
    # They are small. Read here, a mistake in them ends the import before it writes.
    adapters = list(adapters_of(opened, family, config, imported.vocab_size))
    return imported, chain(convert(imported, opened.base), adapters), tokenizer
