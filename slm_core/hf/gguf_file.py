"""Reads a GGUF file (the format of llama.cpp) as the config.json and the tensors of a Hugging Face checkpoint.

Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the keys; the gguf package for the names of
tensors; llama.cpp's convert_hf_to_gguf.py for what it changes in them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm_core.errors import UserError, nearest
from slm_core.hf import family_of
from slm_core.hf.family import Family
from slm_core.hf.fields import text
from slm_core.hf.gguf_architectures import ARCHITECTURES, MIXTRAL, SCALING, UNREAD, WIDTHS, Architecture
from slm_core.model.weights import Lazy, Weights

SPECIAL = {f"tokenizer.ggml.{name}_token_id": f"{name}_token_id" for name in ("bos", "eos")}
EXPERT = re.compile(r"\.experts\.(\d+)\.")
Array = np.ndarray


class GgufFile(NamedTuple):
    """A GGUF file.

    Args:
      values: the fields of a config.json.
      tensors: float32, dequantised when each is read.
      keys: all keys.
    """

    values: dict[str, Any]
    tensors: Weights
    keys: dict[str, Any]


def open_gguf(file: Path) -> GgufFile:
    """Opens a GGUF file.

    Raises:
      UserError: the file is damaged, its architecture is not one of ARCHITECTURES, or a key or a tensor is not known.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        keys = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} cannot be read ({reason}): download it again") from None
    name = str(keys.get("general.architecture", ""))
    if name not in ARCHITECTURES:
        raise UserError(
            f"{file}: general.architecture={name!r} cannot be imported{nearest(name, ARCHITECTURES)}: only"
            f" {', '.join(ARCHITECTURES)}"
        )
    architecture = MIXTRAL if name == "llama" and keys.get("llama.expert_count") else ARCHITECTURES[name]
    stored = {tensor.name: tensor for tensor in reader.tensors}
    values = _config(file, name, architecture, keys, stored)
    return GgufFile(values, _tensors(file, architecture, values, stored), keys)


def _config(
    file: Path, name: str, architecture: Architecture, keys: Mapping[str, Any], stored: Mapping[str, Any]
) -> dict[str, Any]:
    own = {key.removeprefix(f"{name}."): value for key, value in keys.items() if key.startswith(f"{name}.")}
    known = {*architecture.keys, *SCALING, *WIDTHS, *UNREAD}
    for key in sorted(own.keys() - known):
        raise UserError(f"{file}: {name}.{key}={text(own[key])} cannot be expressed: import the checkpoint")
    values: dict[str, Any] = {"model_type": architecture.model_type, **architecture.fixed}
    values["tie_word_embeddings"] = "output.weight" not in stored
    values |= {field: own[key] for key, field in architecture.keys.items() if key in own}
    values |= {field: keys[key] for key, field in SPECIAL.items() if key in keys}
    if any(tensor.endswith(".attn_q.bias") for tensor in stored):
        values["attention_bias"] = True
    embedding = stored.get("token_embd.weight")
    values["vocab_size"] = 1 if embedding is None else int(embedding.shape[-1])
    _add_widths(file, name, architecture, values, own, len(stored))
    scaling = {entry: own[key] for key, entry in SCALING.items() if key in own}
    if scaling.get("rope_type", "none") != "none":
        values["rope_scaling"] = scaling
    return values


def _add_widths(
    file: Path, name: str, architecture: Architecture, values: dict[str, Any], own: Mapping[str, Any], count: int
) -> None:
    """Adds the fields that follow from the width of a head. `count` is the number of tensors."""
    needed = [architecture.keys[key] for key in ("embedding_length", "attention.head_count", "block_count")]
    for field in needed:
        if not isinstance(values.get(field), int) or values[field] < 1:
            raise UserError(f"{file}: the key of {field} is not there, or not a number: download the file again")
    width, heads, layers = (values[field] for field in needed)
    if layers > count:
        raise UserError(f"{file}: {name}.block_count={layers}, and it has {count} tensors: download the file again")
    head = values.get("head_dim", width // heads)
    turned = own.get("rope.dimension_count", head)
    if not architecture.whole_heads:
        values["rotary_pct"] = turned / head
    for key in WIDTHS if architecture.whole_heads else WIDTHS[:1]:
        if own.get(key, head) != head:
            raise UserError(f"{file}: {name}.{key}={own[key]} is not the width of a head, {head}")
    if "attention.key_length" in architecture.keys:
        values["head_dim"] = head
    if architecture.query_scale_of:
        values["query_pre_attn_scalar"] = width // heads if layers == architecture.query_scale_of else head


def _tensors(file: Path, architecture: Architecture, values: Mapping[str, Any], stored: Mapping[str, Any]) -> Weights:
    """Returns the tensors by the names of a checkpoint. Raises UserError for one that it does not have."""
    family = family_of(architecture.model_type)
    names = dict(_names(architecture, family, values))
    for name in sorted(stored.keys() - names.values()):
        raise UserError(f"{file}: tensor {name} cannot be expressed: import the checkpoint instead")

    def read(name: str, change: Callable[[Array], Array]) -> Array:
        from gguf import dequantize

        tensor, expert = stored[names[name]], EXPERT.search(name)
        data = tensor.data if expert is None or tensor.data.ndim < 3 else tensor.data[int(expert[1])]
        try:
            array = np.array(dequantize(data, tensor.tensor_type), np.float32)
        except (NotImplementedError, KeyError) as error:
            raise UserError(f"{file}: tensor {tensor.name} is {tensor.tensor_type.name}: {error}") from None
        return change(array)

    changes = _changes(architecture, family, values)
    return Lazy({name: partial(read, name, changes(name, part)) for name, part in names.items() if part in stored})


def _names(architecture: Architecture, family: Family, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (name of a checkpoint's tensor, name in a GGUF file)."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = family.config(values)
    table = get_tensor_name_map(MODEL_ARCH[architecture.gguf_name], config.model.n_layers)
    for rule in family.rules(config):
        for name in rule.hf_names:
            part = table.get_name(EXPERT.sub(".experts.", name), (".weight", ".bias"))
            if part is not None:
                yield name, part


def _changes(
    architecture: Architecture, family: Family, values: Mapping[str, Any]
) -> Callable[[str, str], Callable[[Array], Array]]:
    """Returns what undoes, for a tensor by its names, the changes that llama.cpp made."""
    heads = values[architecture.keys["attention.head_count"]]
    turned = {"attn_q": heads, "attn_k": values.get("num_key_value_heads") or heads}

    def change(name: str, part: str) -> Callable[[Array], Array]:
        kind = part.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
        if architecture.pairs and kind in turned:
            return partial(halves, heads=turned[kind])
        if architecture.stacked_heads and kind == "attn_qkv":
            return partial(by_head, heads=heads)
        if architecture.added and kind.endswith("norm"):
            return lambda array: array - np.float32(architecture.added)
        return np.transpose if name.endswith(family.inputs_first) else np.asarray

    return change


def halves(array: Array, heads: int) -> Array:
    """Reorders the rows of each head: from pairs (0, 1), (2, 3), ... to all first ones, then all second ones."""
    if array.shape[0] % (2 * heads):
        return array  # the check of shapes names it
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def by_head(array: Array, heads: int) -> Array:
    """Reorders rows: from all queries, all keys and all values to the three of each head."""
    if array.shape[0] % (3 * heads):
        return array
    parts = array.reshape(3, heads, array.shape[0] // heads // 3, *array.shape[1:])
    return parts.swapaxes(0, 1).reshape(array.shape)
