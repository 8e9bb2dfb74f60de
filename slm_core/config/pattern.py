"""`model.pattern`: overrides of the model per layer, tiled over the stack.

Grammar: entries between "|", each `[N*](.|field=value[,field=value])`. Fields are dotted names inside `model.`; "." is
a layer as the model says. `5*attention.window=256 | .` is five windowed layers, then a full one, and again.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from slm_core.config import Model
from slm_core.config.bounds import LAYERS
from slm_core.config.fields import FieldInfo, field_table, with_values
from slm_core.config.values import parse_value
from slm_core.errors import UserError, nearest


class Entry(NamedTuple):
    """One entry of a pattern, repeated `count` times: its text and its values by dotted name inside `model.`."""

    count: int
    text: str
    values: dict[str, Any]


@functools.cache
def layer_fields() -> dict[str, FieldInfo]:
    """Returns {dotted name inside `model.`: FieldInfo} of the fields that a pattern may set."""
    names = {name.removeprefix("model."): info for name, info in field_table().items() if name.startswith("model.")}
    return {name: info for name, info in names.items() if "." in name and info.option.per_layer}


def parse(pattern: str) -> tuple[Entry, ...]:
    """Parses a pattern into its entries; an empty one is ".". Raises UserError that names the first wrong entry."""
    if not pattern.strip():
        return (Entry(1, ".", {}),)
    return tuple(_parse_entry(text.strip()) for text in pattern.split("|"))


def _parse_entry(text: str) -> Entry:
    if not text:
        raise UserError("model.pattern has an empty entry: write . for a layer as the model says")
    count, star, body = (part.strip() for part in text.rpartition("*"))
    if star and not (count.isdecimal() and len(count) < 6 and 1 <= int(count) <= LAYERS):
        raise _error(
            text,
            f"{count[:20] or 'nothing'} before * is not a number of layers from 1 to {LAYERS}: write it as"
            " 5*attention.window=256",
        )
    values: dict[str, Any] = {}
    for part in [] if body == "." else body.split(","):
        name, equals, word = (piece.strip() for piece in part.partition("="))
        _check_name(text, name, bool(equals))
        if name in values:
            raise _error(text, f"{name} is set twice: keep one")
        values[name] = parse_value(f"model.pattern, entry '{text}': {name}", word, layer_fields()[name].type)
        _check_per_layer(text, name, values[name])
    return Entry(int(count) if star else 1, text, values)


def _check_name(text: str, name: str, has_value: bool) -> None:
    if name not in layer_fields():
        hint = nearest(name.removeprefix("model."), layer_fields())
        remedy = f"use fields of mixer, attention, position, norm or mlp{hint}"
        raise _error(text, f"{name or 'nothing'} is not a field that a layer can change: {remedy}")
    if not has_value:
        raise _error(text, f"{name} has no value: write {name}=VALUE")


def _check_per_layer(text: str, name: str, value: Any) -> None:
    option = layer_fields()[name].option
    choices = [choice for choice in option.choices if choice not in option.whole_model]
    if option.whole_model and value not in choices:
        use = f"use {' or '.join(choices)}{nearest(value, choices)}"
        raise _error(text, f"{name}={value} cannot change from layer to layer: {use}")


def _error(entry: str, message: str) -> UserError:
    return UserError(f"model.pattern, entry '{entry}': {message}")


def layer_entries(model: Model) -> tuple[Entry, ...]:
    """Returns the entry of each of the n_layers layers: the pattern is repeated, and ends where the stack ends."""
    tile = [entry for entry in parse(model.pattern) for _ in range(entry.count)]
    return tuple(tile[layer % len(tile)] for layer in range(model.n_layers))


def overridden(model: Model, entry: Entry) -> Model:
    """Applies an entry: its values are set, the pattern is empty, and widths that are unset stay None."""
    return with_values(dataclasses.replace(model, pattern=""), entry.values)


def pattern_of(layers: Sequence[Mapping[str, Any]]) -> str:
    """Returns the shortest pattern that gives each layer its values, by dotted name inside `model.`."""
    texts = [",".join(f"{name}={value}" for name, value in values.items()) or "." for values in layers]
    period = next(n for n in range(1, len(texts) + 1) if all(a == texts[i % n] for i, a in enumerate(texts)))
    runs = [(text, len(list(group))) for text, group in itertools.groupby(texts[:period])]
    entries = [text if count == 1 else f"{count}*{text}" for text, count in runs]
    return "" if entries == ["."] else " | ".join(entries)
