"""Gemma 3 (Gemma Team 2025, https://arxiv.org/abs/2503.19786): Gemma 2 with normed queries and keys in place of the
soft-cap of scores. It has five windowed layers for each full one, and another rotation in each of the two types."""

import dataclasses
from functools import partial
from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import reads, with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families.gemma2 import NEUTRAL, NORMS, SHARED, SMALLEST, read_model, write_model
from slm_core.hf.families.llama import rules
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, checked, flag, nested, number, text, whole
from slm_core.hf.layer_types import FULL, SLIDING, read_layer_types, read_windows, write_layer_types
from slm_core.hf.rope import KNOWN, completed, read_rope, whole_heads, write_rope

THETA = {FULL: 1e6, SLIDING: 10_000.0}
"""{layer type: the class's own rope_theta}"""
OUTER = {"partial_rotary_factor", "original_max_position_embeddings"}
"""Rotary fields of other classes that this one does not have."""
FIELDS = {name: field for name, field in SHARED.items() if name not in OUTER} | {
    "vocab_size": whole(262208),
    "max_position_embeddings": whole(131072),
    "attn_logit_softcapping": number(None),
    "final_logit_softcapping": number(None, low=SMALLEST),
    "use_bidirectional_attention": flag(False, null=True),
    "sliding_window_pattern": whole(6),
    "rope_theta": number(THETA[FULL]),
    "rope_local_base_freq": number(THETA[SLIDING]),
}


def read(fields: Fields) -> Config:
    fields.only("attn_logit_softcapping", None)  # the class has the field and applies no cap
    period = fields.get("sliding_window_pattern")
    types = read_layer_types(fields, lambda i: (i + 1) % period != 0)
    windowed = read_windows(types, fields.get("sliding_window"))
    positions = _read_positions(fields)
    base = positions[FULL if FULL in types else SLIDING]
    values = {
        "attention.qk_norm": "rmsnorm",
        "logit_softcap": fields.get("final_logit_softcapping") or 0.0,
    }
    local = {FULL: {}, SLIDING: _changes(positions[SLIDING], base)}
    layers = [layer | local[kind] for layer, kind in zip(windowed, types, strict=True)]
    return imported(with_values(read_model(fields, base), values), layers, fields.get("max_position_embeddings"))


def _read_positions(fields: Fields) -> dict[str, Position]:
    """Reads the position of each layer type.

    Before v5, rope_theta and rope_scaling were those of full layers, and rope_local_base_freq that of windowed ones.
    """
    given = fields.get("rope_parameters") or {}
    for name in sorted(given.keys() - THETA.keys()):
        raise UserError(f"config.json: {name}={text(given[name])} in rope_parameters is not of a type of layers")
    theta = {FULL: fields.get("rope_theta"), SLIDING: fields.get("rope_local_base_freq")}
    return {kind: _read_position(fields, kind, given.get(kind), theta[kind]) for kind in THETA}


def _read_position(fields: Fields, kind: str, given: Any, theta: float) -> Position:
    entries = dict(checked(f"rope_parameters {kind}", given, nested(), "gemma3_text") or {"rope_type": "default"})
    if kind == FULL:
        scaling = fields.get("rope_scaling") or {}
        if "type" in scaling and "rope_type" not in scaling:
            raise UserError("config.json: type in rope_scaling is not read by the class: call it rope_type")
        entries |= scaling
    # The class looks for truncate outside the entries of a type.
    known = KNOWN - {"truncate"} if entries.get("truncate") is not True else KNOWN
    rope = completed({"rope_theta": theta} | entries, fields.get("max_position_embeddings"), known)
    whole_heads(rope)
    return Position(**read_rope(rope))


def _changes(position: Position, base: Position) -> dict[str, Any]:
    """Returns the fields inside `model.` in which a position differs from `base`."""
    names = [field.name for field in dataclasses.fields(position) if reads(position, field.name)]
    return {f"position.{n}": getattr(position, n) for n in names if getattr(position, n) != getattr(base, n)}


def write(config: Config) -> dict[str, Any]:
    layers, types = layer_specs(config.model), write_layer_types(config)["layer_types"]
    first = {kind: next((layers[i] for i, t in enumerate(types) if t == kind), layers[0]) for kind in THETA}
    rope = {kind: write_rope(layer, config.data.seq_len) for kind, layer in first.items()}
    for entries in rope.values():
        entries.pop("truncate", None)  # the class does not look for it there
    return write_model(config) | {"rope_parameters": rope}


EXAMPLES = {
    "windows": TINY | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2,
        "pad_token_id": None,
    },
    "two scalings, cap, untied, biases": ROOMY | {
        "query_pre_attn_scalar": 5, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
        "rope_parameters": {"full_attention": TINY_YARN, "sliding_attention": TINY_LINEAR | {"rope_theta": 20.0}},
        "tie_word_embeddings": False, "attention_bias": True,
    },
}  # fmt: skip

GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    FIELDS,
    read,
    write,
    partial(rules, norms=NORMS),
    neutral=(*NEUTRAL, "_sliding_window_pattern"),
    examples=EXAMPLES,
)
