"""Gemma 3 (Gemma Team 2025, https://arxiv.org/abs/2503.19786): Gemma 2 with normed queries and keys in place of the
soft-cap of scores. It has five windowed layers for each full one, and another rotation in each of the two types."""

import dataclasses
from functools import partial
from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import reads, with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.families.gemma2 import NORMS, WINDOW, read_model, write_model
from slm_core.hf.families.llama import rules
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.layer_types import FULL, SLIDING, read_layer_types, read_windows, write_layer_types
from slm_core.hf.rope import read_rope, rope_parameters, write_rope

THETA = {FULL: 1e6, SLIDING: 10_000.0}
"""{layer type: the class's own rope_theta}"""


def read(fields: Fields) -> Config:
    if fields.get("vision_config"):
        raise UserError("config.json: vision_config is set: import a text-only Gemma 3, of model_type gemma3_text")
    fields.only("attn_logit_softcapping", None)  # the class has the field and applies no cap
    period = fields.get("sliding_window_pattern", 6)
    types = read_layer_types(fields, lambda i: (i + 1) % period != 0)
    windowed = read_windows(types, fields.explicit("sliding_window", WINDOW))
    positions = _read_positions(fields)
    base = positions[FULL if FULL in types else SLIDING]
    values = {
        "attention.qk_norm": "rmsnorm",
        "logit_softcap": fields.get("final_logit_softcapping", 0.0),
        "position": base,
    }
    local = {FULL: {}, SLIDING: _changes(positions[SLIDING], base)}
    layers = [layer | local[kind] for layer, kind in zip(windowed, types, strict=True)]
    return imported(with_values(read_model(fields), values), layers, fields.need("max_position_embeddings"))


def _read_positions(fields: Fields) -> dict[str, Position]:
    """Reads the position of each layer type.

    Before v5, rope_theta and rope_scaling were those of full layers, and rope_local_base_freq that of windowed ones.
    """
    context, given = fields.need("max_position_embeddings"), fields.get("rope_parameters", {})
    local = {"rope_type": "default", "rope_theta": fields.get("rope_local_base_freq", THETA[SLIDING])}
    rope = {FULL: rope_parameters(fields, FULL), SLIDING: local | (given.get(SLIDING) or {})}
    return {kind: Position(**read_rope(rope[kind], context, THETA[kind])) for kind in rope}


def _changes(position: Position, base: Position) -> dict[str, Any]:
    """Returns the fields inside `model.` in which a position differs from `base`."""
    names = [field.name for field in dataclasses.fields(position) if reads(position, field.name)]
    return {f"position.{n}": getattr(position, n) for n in names if getattr(position, n) != getattr(base, n)}


def write(config: Config) -> dict[str, Any]:
    layers, types = layer_specs(config.model), write_layer_types(config)["layer_types"]
    first = {kind: next((layers[i] for i, t in enumerate(types) if t == kind), layers[0]) for kind in THETA}
    rope = {kind: write_rope(layer, config.data.seq_len) for kind, layer in first.items()}
    return write_model(config) | {"rope_parameters": rope}


GEMMA3 = Family("gemma3_text", "Gemma3ForCausalLM", read, write, partial(rules, norms=NORMS))
