"""Reads and writes the rotary positions of families in which each type of layers has its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import reads
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.fields import Fields, checked, nested, text
from slm_core.hf.layer_types import FULL, SLIDING, write_layer_types
from slm_core.hf.rope import KNOWN, completed, read_rope, whole_heads, write_rope

OUTER = {"partial_rotary_factor", "original_max_position_embeddings"}
"""Rotary fields of other classes that these do not have beside the types."""


def read_positions(
    fields: Fields, types: Sequence[str], theta: Mapping[str, float]
) -> tuple[Position, list[dict[str, Any]]]:
    """Reads `rope_parameters` of each type of layers, with a `rope_scaling` for full layers.

    Args:
      types: of each layer.
      theta: {type of layers: its theta unless it has one}.

    Returns:
      The position of the model, and the fields inside `model.` in which each layer differs from it.
    """
    given = fields.get("rope_parameters") or {}
    for name in sorted(given.keys() - theta.keys()):
        raise UserError(f"config.json: {name}={text(given[name])} in rope_parameters is not of a type of layers")
    positions = {kind: _read_position(fields, kind, given.get(kind), theta[kind]) for kind in theta}
    base = positions[FULL if FULL in types else SLIDING]
    changes = {FULL: {}, SLIDING: _changes(positions[SLIDING], base)}
    return base, [changes[kind] for kind in types]


def _read_position(fields: Fields, kind: str, given: Any, theta: float) -> Position:
    entries = dict(checked(f"rope_parameters {kind}", given, nested(), fields.family) or {"rope_type": "default"})
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


def write_positions(config: Config) -> dict[str, Any]:
    """Returns `rope_parameters` of each type of layers, those of its first layer."""
    layers, types = layer_specs(config.model), write_layer_types(config)["layer_types"]
    first = {kind: next((layers[i] for i, t in enumerate(types) if t == kind), layers[0]) for kind in (FULL, SLIDING)}
    rope = {kind: write_rope(layer, config.data.seq_len) for kind, layer in first.items()}
    for entries in rope.values():
        entries.pop("truncate", None)  # the class does not look for it there
    return rope
