"""The fields of the schema by dotted name: their types, how to set them, and which of them a config reads."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from slm_core.config import Config
from slm_core.config.option import Option, options
from slm_core.errors import UserError, nearest

OF_ATTENTION = ("attention", "position")
"""Sections of the model that only layers with model.mixer.kind=attention read."""
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class FieldInfo(NamedTuple):
    """One field of the schema: its dotted name, its annotated type, its default, and what the schema says of it."""

    name: str
    type: Any
    default: Any
    option: Option


def fields() -> Iterator[FieldInfo]:
    """Yields every field, in schema order."""
    yield from field_table().values()


@functools.cache
def field_table() -> dict[str, FieldInfo]:
    """Returns {dotted name: FieldInfo} in schema order."""
    return {info.name: info for info in _walk(Config, "")}


def _walk(section: type, prefix: str) -> Iterator[FieldInfo]:
    declared = options(section)
    for name, annotation in members(section).items():
        if dataclasses.is_dataclass(annotation):
            yield from _walk(annotation, f"{prefix}{name}.")
        else:
            yield FieldInfo(prefix + name, annotation, getattr(section, name), declared[name])


@functools.cache
def members(section: type) -> dict[str, Any]:
    """Returns {name: annotated type} of a section's fields and the sections inside it, in schema order."""
    return typing.get_type_hints(section)


class Section(NamedTuple):
    """One section of the schema: its dotted name ("" is the whole config), its line of meaning, and its own fields."""

    name: str
    doc: str
    fields: tuple[FieldInfo, ...]


def sections() -> list[Section]:
    """Returns the sections of the schema: first the whole config, then each before the sections inside it."""
    return list(_sections(Config, ""))


def _sections(section: type, name: str) -> Iterator[Section]:
    inside = {f"{name}.{leaf}".lstrip("."): annotation for leaf, annotation in members(section).items()}
    infos = tuple(field_table()[leaf] for leaf in inside if leaf in field_table())
    yield Section(name, (inspect.getdoc(section) or "").split("\n")[0], infos)
    for dotted, annotation in inside.items():
        if dataclasses.is_dataclass(annotation):
            yield from _sections(annotation, dotted)


def base_type(annotation: Any) -> type:
    """Returns the plain type of an annotation: int of `int | None`, tuple of `tuple[float, float]`."""
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    if is_optional(annotation):
        return base_type(options[0])
    return typing.get_origin(annotation) or annotation


def is_optional(annotation: Any) -> bool:
    """Returns whether None is a value of the annotated type."""
    return type(None) in typing.get_args(annotation)


def type_name(annotation: Any) -> str:
    """Returns the type as `--help` shows it: "int", "int|none", "float,float"."""
    base = base_type(annotation)
    if base is tuple:
        return ",".join(item.__name__ for item in typing.get_args(annotation))
    return base.__name__ + ("|none" if is_optional(annotation) else "")


def expected(annotation: Any) -> str:
    """Describes the values of a type, for an error message."""
    base = base_type(annotation)
    if base is tuple:
        return f"{len(typing.get_args(annotation))} numbers with a comma between them"
    return _EXPECTED[base] + (" or none" if is_optional(annotation) else "")


def nearest_field(name: str) -> str:
    """Returns " (did you mean X?)" for the field closest to a dotted name that is not one, or ""."""
    leaf = name.rpartition(".")[2]
    same_leaf = [field for field in field_table() if field.rpartition(".")[2] == leaf]
    if same_leaf:
        return nearest(name, same_leaf) or f" (did you mean {same_leaf[0]}?)"
    by_leaf = {field.rpartition(".")[2]: field for field in reversed(field_table())}
    close = nearest(name, field_table()) if "." in name else ""
    if close or not (hint := nearest(leaf, by_leaf)):
        return close
    return f" (did you mean {by_leaf[hint.removeprefix(' (did you mean ').removesuffix('?)')]}?)"


def unknown_field(name: str) -> UserError:
    """Returns the error for a dotted name that is not a field: a section, or a misspelling."""
    inside = [field.removeprefix(name + ".") for field in field_table() if field.startswith(name + ".")]
    if inside:
        return UserError(f"{name} is a section: set one of its fields, such as {name}.{inside[0]}")
    return UserError(f"{name} is not a field of the configuration{nearest_field(name)}; --help lists them")


def flatten(config: Config) -> dict[str, Any]:
    """Returns {dotted name: value} of every field, in schema order; tuples stay tuples."""
    return {name: functools.reduce(getattr, name.split("."), config) for name in field_table()}


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """Returns a copy of a config, or of one of its sections, with the fields of these (relative) dotted names set."""
    nested: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    changes |= {head: with_values(getattr(config, head), inner) for head, inner in nested.items()}
    return dataclasses.replace(config, **changes)


def wrong_type(name: str, text: str, annotation: Any) -> UserError:
    """Returns the error for a value, as the user wrote it, that the field's type does not have."""
    hint = _whole(text) if base_type(annotation) is int else ""
    return UserError(f"{name}={text} is of the wrong type: give {expected(annotation)}{hint}")


def _whole(text: str) -> str:
    """Returns ", such as 1000" for the text "1e3": a whole number, but not written as one."""
    try:
        number = float(text.strip("'"))
    except ValueError:
        return ""
    return f", such as {int(number)}" if number.is_integer() and abs(number) < 1e15 else ""


def reads(section: Any, field: str) -> bool:
    """Returns whether a section reads this field of its own, given the values of its selector fields."""
    rules = options(type(section))[field].read_by
    return all(selected(section, selector) in kinds and reads(section, selector) for selector, kinds in rules.items())


def layer_reads(layer: Any, name: str) -> bool:
    """Returns whether a layer reads the field of this name inside `model.`; `layer` is its `Model`.

    A mixer other than attention reads neither `attention` nor `position`.
    """
    section, _, field = name.partition(".")
    read = layer.mixer.kind == "attention" or section not in OF_ATTENTION
    return read and reads(getattr(layer, section), field)


def selected(section: Any, selector: str) -> str:
    """Returns a selector's value as `read_by` and `choices` name it: "file:PATH" for a tokenizer "file:x.json"."""
    value = getattr(section, selector)
    head, colon, _ = value.partition(":")
    return f"{head}:PATH" if colon else value
