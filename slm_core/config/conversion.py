"""From `Config` to `ml_collections.ConfigDict` and back, and from the words of a command line to values."""

import dataclasses
import typing
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import base_type, is_optional, members, unknown_field, wrong_type


def to_config_dict(config: Config) -> Any:
    """Returns the config as a locked `ml_collections.ConfigDict`, ready for `config_flags`.

    Fields that may be None hold a typed placeholder, so that the command line can set them. Tuples stay tuples.
    """
    import ml_collections

    return ml_collections.ConfigDict(_nested(config)).lock()


def _nested(section: Any) -> dict[str, Any]:
    return {
        name: _reference(getattr(section, name), annotation) for name, (_, annotation) in members(type(section)).items()
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
    known = members(section)
    for name in values:
        if name not in known:
            raise unknown_field(f"{prefix}{name}")
    built = {}
    for name, (_, annotation) in known.items():
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
