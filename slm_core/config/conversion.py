"""From `Config` to `ml_collections.ConfigDict`, which presets return, and back."""

import dataclasses
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import base_type, is_optional, members, unknown_field
from slm_core.config.values import convert


def to_config_dict(config: Config) -> Any:
    """Converts the config to a locked `ml_collections.ConfigDict`, ready for `config_flags`.

    Fields that may be None become typed placeholders, so that `config_flags` can set them. Tuples stay tuples.
    """
    import ml_collections

    return ml_collections.ConfigDict(_nested(config)).lock()


def _nested(section: Any) -> dict[str, Any]:
    return {name: _reference(getattr(section, name), annotation) for name, annotation in members(type(section)).items()}


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
    """Converts a ConfigDict, or a nested mapping, to a Config; fields that it lacks take the schema's defaults.

    Raises:
      UserError: a name that is not a field, with the nearest one, or a value of the wrong type. A float may be a
        whole number, and a tuple a list.
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
    for name, annotation in known.items():
        if name not in values:
            continue
        if dataclasses.is_dataclass(annotation):
            built[name] = _build(annotation, values[name], f"{prefix}{name}.")
        else:
            built[name] = convert(f"{prefix}{name}", values[name], annotation)
    return section(**built)
