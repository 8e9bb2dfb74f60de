"""The schema's fields by dotted name, and the way from `Config` to `ml_collections.ConfigDict` and back."""

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from slm_core.config import Config
from slm_core.errors import UserError, nearest

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class FieldInfo(NamedTuple):
    """One field of the schema: its dotted name, its dataclass field (doc, bounds, ...) and its annotated type."""

    name: str
    field: dataclasses.Field
    type: Any


def fields() -> Iterator[FieldInfo]:
    """Yields (dotted name, dataclasses.Field, annotated type) of every field, in schema order."""
    yield from field_table().values()


@functools.cache
def field_table() -> dict[str, FieldInfo]:
    """Returns {dotted name: FieldInfo} in schema order."""
    return {info.name: info for info in _walk(Config, "")}


def _walk(section: type, prefix: str) -> Iterator[FieldInfo]:
    for name, (field, annotation) in _members(section).items():
        if dataclasses.is_dataclass(annotation):
            yield from _walk(annotation, f"{prefix}{name}.")
        else:
            yield FieldInfo(prefix + name, field, annotation)


@functools.cache
def _members(section: type) -> dict[str, tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(section)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(section)}


@functools.cache
def sections() -> dict[str, tuple[str, ...]]:
    """Returns {dotted section: names of its own fields} in schema order; "" holds the fields outside any section."""
    table: dict[str, tuple[str, ...]] = {}
    for name in field_table():
        section, _, leaf = name.rpartition(".")
        table[section] = (*table.get(section, ()), leaf)
    return table


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
    plain = base_type(annotation)
    if plain is tuple:
        return ",".join(item.__name__ for item in typing.get_args(annotation))
    return plain.__name__ + ("|none" if is_optional(annotation) else "")


def expected(annotation: Any) -> str:
    """Returns what to give instead of a value of the wrong type, for an error message."""
    plain = base_type(annotation)
    if plain is tuple:
        return f"{len(typing.get_args(annotation))} numbers with a comma between them"
    return _EXPECTED[plain] + (" or none" if is_optional(annotation) else "")


def nearest_field(name: str) -> str:
    """Returns " (did you mean X?)" for the field closest to a dotted name that isn't one, or ""."""
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
    """Returns the error for a dotted name that isn't a field: a section, or a misspelling."""
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


def to_config_dict(config: Config) -> Any:
    """Returns the config as a locked `ml_collections.ConfigDict`, ready for `config_flags`.

    Fields that may be None hold a typed placeholder, so that the command line can set them. Tuples stay tuples.
    """
    import ml_collections

    return ml_collections.ConfigDict(_nested(config)).lock()


def _nested(section: Any) -> dict[str, Any]:
    return {
        name: _reference(getattr(section, name), annotation)
        for name, (_, annotation) in _members(type(section)).items()
    }


def _reference(value: Any, annotation: Any) -> Any:
    from ml_collections import config_dict

    if dataclasses.is_dataclass(value):
        return _nested(value)
    if not is_optional(annotation):
        return value
    reference = config_dict.placeholder(base_type(annotation))
    reference.set(value)
    return reference


def from_config_dict(values: Any) -> Config:
    """Returns the Config of a ConfigDict or a nested mapping; fields that it lacks take the schema's defaults.

    Raises:
      UserError: a name that isn't a field (with the nearest one), or a value of the wrong type. A whole number is
        accepted for a float, a list for a tuple.
    """
    return _build(Config, values, "")


def _build(section: type, values: Any, prefix: str) -> Any:
    if not hasattr(values, "keys"):
        raise unknown_field(prefix.removesuffix("."))
    members = _members(section)
    for name in values:
        if name not in members:
            raise unknown_field(f"{prefix}{name}")
    built = {}
    for name, (_, annotation) in members.items():
        if name not in values:
            continue
        if dataclasses.is_dataclass(annotation):
            built[name] = _build(annotation, values[name], f"{prefix}{name}.")
        else:
            built[name] = convert(f"{prefix}{name}", values[name], annotation)
    return section(**built)


def convert(name: str, value: Any, annotation: Any) -> Any:
    """Returns the value as the annotated type has it; raises UserError naming the field when it is of another type."""
    plain = base_type(annotation)
    if value is None and is_optional(annotation):
        return None
    if plain is tuple and isinstance(value, (tuple, list)):
        items = typing.get_args(annotation)
        if len(items) == len(value) and all(_fits(v, item) for v, item in zip(value, items, strict=True)):
            return tuple(item(v) for v, item in zip(value, items, strict=True))
    elif plain is not tuple and _fits(value, plain):
        return plain(value)
    raise wrong_type(name, repr(value), annotation)


def _fits(value: Any, plain: type) -> bool:
    if isinstance(value, bool):
        return plain is bool
    return isinstance(value, (int, float) if plain is float else plain)


def wrong_type(name: str, text: str, annotation: Any) -> UserError:
    """Returns the error for a value, as the user wrote it, that the field's type cannot hold."""
    return UserError(f"{name}={text} is of the wrong type: give {expected(annotation)}")


def parse_value(name: str, text: str, annotation: Any) -> Any:
    """Returns the value of one word: bool, int, float or str, or None for "none" where the type allows it.

    The words are read as absl's flags read them, so that patterns and the command line agree.

    Raises:
      UserError: naming the field, the text and what to give instead.
    """
    from absl import flags

    plain = base_type(annotation)
    if is_optional(annotation) and text.lower() == "none":
        return None
    parsers = {
        bool: flags.BooleanParser(),
        int: flags.IntegerParser(),
        float: flags.FloatParser(),
        str: flags.ArgumentParser(),
    }
    try:
        return parsers[plain].parse(text)
    except (ValueError, TypeError):
        raise wrong_type(name, text, annotation) from None
