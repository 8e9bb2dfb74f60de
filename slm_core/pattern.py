"""`model.pattern`: per-layer overrides tiled over the stack, and the resolved model of every layer.

Grammar: entries between "|", each `[N*](.|field=value[,field=value])`. Fields are dotted names inside `model.`; "." is
a layer as the model says. `5*attention.window=256 | .` is five windowed layers, then a full one, and so on.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slm_core.config import Model
from slm_core.config_dict import FieldInfo, field_table, parse_value, with_values
from slm_core.errors import UserError, nearest

_SECTIONS = ("attention.", "position.", "mlp.")
_NORM = (
    "norm.kind",
    "norm.eps",
    "norm.weight",
    "norm.bias",
    "norm.alpha",
)  # the placement shapes a whole block and the final norm
LAYER_POSITIONS = ("rope", "alibi", "t5", "none")
"""Kinds of position that act inside attention. The others act on the embedding, once a model."""


class Entry(NamedTuple):
    """One entry of a pattern, repeated `count` times: its text and its values by dotted name inside `model.`."""

    count: int
    text: str
    values: dict[str, Any]


@functools.cache
def layer_fields() -> dict[str, FieldInfo]:
    """Returns {dotted name inside `model.`: FieldInfo} of the fields that a pattern may set."""
    names = {name.removeprefix("model."): info for name, info in field_table().items() if name.startswith("model.")}
    return {name: info for name, info in names.items() if name.startswith(_SECTIONS) or name in _NORM}


def parse(pattern: str) -> tuple[Entry, ...]:
    """Returns the entries of a pattern; one "." for an empty one. Raises UserError naming the entry that is wrong."""
    if not pattern.strip():
        return (Entry(1, ".", {}),)
    return tuple(_parse_entry(text.strip()) for text in pattern.split("|"))


def _parse_entry(text: str) -> Entry:
    if not text:
        raise UserError("model.pattern has an empty entry: write . for a layer as the model says")
    count, star, body = (part.strip() for part in text.rpartition("*"))
    if star and not (count.isdecimal() and int(count) >= 1):
        raise _error(
            text, f"{count or 'nothing'} before * is not a number of layers: write it as 5*attention.window=256"
        )
    values: dict[str, Any] = {}
    for part in [] if body == "." else body.split(","):
        name, equals, word = (piece.strip() for piece in part.partition("="))
        _check_name(text, name, bool(equals))
        if name in values:
            raise _error(text, f"{name} is set twice: keep one")
        values[name] = parse_value(f"model.pattern, entry '{text}': {name}", word, layer_fields()[name].type)
    kind = values.get("position.kind", "rope")
    if kind not in LAYER_POSITIONS:
        choices = " or ".join(LAYER_POSITIONS)
        raise _error(
            text,
            f"position.kind={kind} cannot change from layer to layer: use {choices}{nearest(kind, LAYER_POSITIONS)}",
        )
    return Entry(int(count) if star else 1, text, values)


def _check_name(text: str, name: str, has_value: bool) -> None:
    if name not in layer_fields():
        hint = nearest(name.removeprefix("model."), layer_fields())
        remedy = f"use fields of attention, position, norm or mlp{hint}"
        raise _error(text, f"{name or 'nothing'} is not a field that a layer can change: {remedy}")
    if not has_value:
        raise _error(text, f"{name} has no value: write {name}=VALUE")


def _error(entry: str, message: str) -> UserError:
    return UserError(f"model.pattern, entry '{entry}': {message}")


def layer_entries(model: Model) -> tuple[Entry, ...]:
    """Returns the entry of each of the n_layers layers: the pattern repeated, the last tile cut where need be."""
    tile = [entry for entry in parse(model.pattern) for _ in range(entry.count)]
    return tuple(tile[layer % len(tile)] for layer in range(model.n_layers))


def overridden(model: Model, entry: Entry) -> Model:
    """Returns the model of a layer of this entry, with what is unset still None and an empty pattern."""
    return with_values(dataclasses.replace(model, pattern=""), entry.values)


def resolve(model: Model) -> Model:
    """Returns the model with every width that may be unset filled in, as the fields' own lines in the schema say.

    Gated MLPs take two thirds of 4 d_model, because they have three matrices (Shazeer 2020).
    """
    attention = model.attention
    head_dim = model.d_model // attention.n_heads // (2 if attention.kind == "differential" else 1)
    head_dim = attention.head_dim or head_dim
    rope_dim = attention.rope_dim or head_dim // 2
    query = head_dim + rope_dim if attention.kind == "mla" else head_dim
    filled = {
        "attention.n_kv_heads": attention.n_heads,
        "attention.head_dim": head_dim,
        "attention.kv_rank": 4 * head_dim,
        "attention.rope_dim": rope_dim,
        "attention.v_dim": head_dim,
        "attention.scale": _default_scale(model, query),
        "attention.output_bias": attention.bias,
        "mlp.hidden": default_hidden(model),
    }
    unset = (name for name in filled if functools.reduce(getattr, name.split("."), model) is None)
    return with_values(model, {name: filled[name] for name in unset})


def _default_scale(model: Model, query: int) -> float:
    """Under muP scores fall with the width, not with its root; at a width of 64 the two agree."""
    if model.attention.qk_norm == "l2":
        return query**0.5
    return 8 / query if model.mup_base_width else query**-0.5


def default_hidden(model: Model) -> int:
    """Returns the inner width of an MLP (of one expert) whose config leaves it unset."""
    dense = {"gelu": 4 * model.d_model, "swiglu": -(-8 * model.d_model // 96) * 32}
    dense |= {"relu2": dense["gelu"], "geglu": dense["swiglu"], "clipped_swiglu": dense["swiglu"]}
    if model.mlp.kind != "moe":
        return dense[model.mlp.kind]
    visited = model.mlp.top_k + model.mlp.shared_experts
    return -(-dense[model.mlp.expert] // (8 * visited)) * 8


def group_size(n_layers: int) -> int:
    """Returns how many layers in a row make a group under memory.remat=full; the last group may be smaller."""
    return max(1, round(n_layers**0.5))


def repetition(kinds: Sequence[Any]) -> tuple[int, int, int]:
    """Returns (start, period, repeats) of the most layers in a row that repeat, with the shortest period; (0, 0, 0):
    none do.

    Args:
      kinds: one value a layer; layers of equal values are alike.
    """
    best = (0, 0, 0)
    for period in range(1, len(kinds) // 2 + 1):
        for start in range(len(kinds) - 2 * period + 1):
            stop = start + period
            while stop < len(kinds) and kinds[stop] == kinds[stop - period]:
                stop += 1
            repeats = (stop - start) // period
            if (repeats - 1) * period > max(best[2] - 1, 0) * best[1]:
                best = (start, period, repeats)
    return best


def pattern_of(layers: Sequence[Mapping[str, Any]]) -> str:
    """Returns the shortest pattern that gives each layer its values, by dotted name inside `model.`."""
    texts = [",".join(f"{name}={value}" for name, value in values.items()) or "." for values in layers]
    period = next(n for n in range(1, len(texts) + 1) if all(a == texts[i % n] for i, a in enumerate(texts)))
    runs = [(text, len(list(group))) for text, group in itertools.groupby(texts[:period])]
    entries = [text if count == 1 else f"{count}*{text}" for text, count in runs]
    return "" if entries == ["."] else " | ".join(entries)


def reads(section: Any, field: str) -> bool:
    """Returns whether a config section, by the values of its selector fields, reads this field of its own."""
    metadata = {f.name: f.metadata for f in dataclasses.fields(section)}
    rules = metadata[field].get("read_by") or {}
    return all(selected(section, selector) in kinds and reads(section, selector) for selector, kinds in rules.items())


def selected(section: Any, selector: str) -> str:
    """Returns a selector's value as `read_by` and `choices` name it: "file:PATH" for a tokenizer "file:x.json"."""
    value = getattr(section, selector)
    head, colon, _ = value.partition(":")
    return f"{head}:PATH" if colon else value


def _without_unread(model: Model, entry: Entry) -> Model:
    """Returns the layer's model with the fields that its kinds do not read back at their defaults."""
    for name, info in layer_fields().items():
        section, field = name.split(".")
        if name not in entry.values and not reads(getattr(model, section), field):
            model = with_values(model, {name: info.field.default})
    return model


@functools.lru_cache(maxsize=256)
def layer_models(model: Model) -> tuple[Model, ...]:
    """Returns one resolved Model a layer: the pattern's values in, unset widths filled in.

    `position.kind` of a layer may also be "learned" or "sinusoidal", as the model says: those act on the embedding, and
    attention does nothing for them. Equal layers are equal values.

    Raises:
      UserError: naming model.pattern and the entry that is wrong.
    """
    entries = layer_entries(model)
    resolved = {entry.text: resolve(_without_unread(overridden(model, entry), entry)) for entry in entries}
    return tuple(resolved[entry.text] for entry in entries)
