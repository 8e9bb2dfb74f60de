"""Reads a GGUF file (the format of llama.cpp) as the config.json and the tensors of a Hugging Face checkpoint.

Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the keys; llama.cpp's convert_hf_to_gguf.py for
the names and the order of tensors.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from slm_core.errors import UserError, nearest
from slm_core.hf.fields import text
from slm_core.model.weights import Lazy, Weights

if TYPE_CHECKING:
    from gguf import GGUFReader

FIELDS = {
    "vocab_size": "vocab_size", "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}  # fmt: skip
"""{key behind the architecture: field of config.json}"""
SCALING = {
    "rope.scaling.type": "rope_type", "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.attn_factor": "attention_factor", "rope.scaling.finetuned": "finetuned",
}  # fmt: skip
"""{key behind the architecture: entry of rope_scaling}"""
WIDTHS = ("attention.value_length", "rope.dimension_count")
"""Keys whose value must be the width of a head."""
SPECIAL = {f"tokenizer.ggml.{name}_token_id": f"{name}_token_id" for name in ("bos", "eos")}
OUTER = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}  # fmt: skip
PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""{part of a block: its name in a checkpoint}"""


class Architecture(NamedTuple):
    """An architecture of llama.cpp.

    Args:
      model_type: the family that it is.
      pairs: whether queries and keys turn in pairs (0, 1), (2, 3), ..., and not in halves.
    """

    model_type: str
    pairs: bool


ARCHITECTURES = {"llama": Architecture("llama", True), "qwen3": Architecture("qwen3", False)}


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
      UserError: the file is damaged, its architecture is not one of ARCHITECTURES, or a key is not known.
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
    values = _config(file, name, keys, reader)
    return GgufFile(values, _tensors(file, ARCHITECTURES[name], values, reader), keys)


def _config(file: Path, architecture: str, keys: Mapping[str, Any], reader: "GGUFReader") -> dict[str, Any]:
    own = {
        key.removeprefix(f"{architecture}."): value for key, value in keys.items() if key.startswith(f"{architecture}.")
    }
    for key in sorted(own.keys() - FIELDS.keys() - SCALING.keys() - set(WIDTHS)):
        raise UserError(f"{file}: {architecture}.{key}={text(own[key])} cannot be expressed: import the checkpoint")
    names = {tensor.name for tensor in reader.tensors}
    values: dict[str, Any] = {"model_type": ARCHITECTURES[architecture].model_type}
    values["tie_word_embeddings"] = "output.weight" not in names
    values["attention_bias"] = any(name.endswith(".attn_q.bias") for name in names)
    values |= {field: own[key] for key, field in FIELDS.items() if key in own}
    values |= {field: keys[key] for key, field in SPECIAL.items() if key in keys}
    values["vocab_size"] = next((int(t.shape[-1]) for t in reader.tensors if t.name == "token_embd.weight"), 1)
    for needed in ("hidden_size", "num_attention_heads"):
        if not isinstance(values.get(needed), int):
            raise UserError(f"{file}: the key of {needed} is not there: download the file again")
    values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
    for key in WIDTHS:
        if own.get(key, values["head_dim"]) != values["head_dim"]:
            raise UserError(f"{file}: {architecture}.{key}={own[key]} is not the width of a head, {values['head_dim']}")
    scaling = {entry: own[key] for key, entry in SCALING.items() if key in own}
    if scaling.get("rope_type", "none") != "none":
        values["rope_scaling"] = scaling
    return values


def _tensors(file: Path, architecture: Architecture, values: Mapping[str, Any], reader: "GGUFReader") -> Weights:
    heads = {"attn_q": values["num_attention_heads"]}
    heads["attn_k"] = values.get("num_key_value_heads") or heads["attn_q"]

    def read(tensor: Any, turning: int) -> np.ndarray:
        from gguf import dequantize

        try:
            array = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        except (NotImplementedError, KeyError) as error:
            raise UserError(f"{file}: tensor {tensor.name} is {tensor.tensor_type.name}: {error}") from None
        return halves(array, turning) if turning else array

    tensors = {}
    for tensor in reader.tensors:
        part = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", tensor.name)
        if tensor.name in OUTER:
            tensors[OUTER[tensor.name]] = partial(read, tensor, 0)
        elif part and part[2] in PARTS:
            turning = heads.get(part[2], 0) if architecture.pairs else 0
            tensors[f"model.layers.{part[1]}.{PARTS[part[2]]}.{part[3]}"] = partial(read, tensor, turning)
        else:
            raise UserError(f"{file}: tensor {tensor.name} cannot be expressed: import the checkpoint instead")
    return Lazy(tensors)


def halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of each head: from pairs (0, 1), (2, 3), ... to all first ones, then all second ones."""
    if array.shape[0] % (2 * heads):
        return array  # the check of shapes names it
    pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)
