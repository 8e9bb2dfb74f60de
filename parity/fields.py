"""Says what reads a field of the schema, and which other values it may have."""

from typing import Any

from slm_core.config import Config
from slm_core.config.fields import base_type, field_table, flatten


def choices(name: str) -> tuple[str, ...]:
    """Returns the choices of a field; () if it has none."""
    return tuple(field_table()[name].option.choices)


def selectors(name: str) -> dict[str, tuple[str, ...]]:
    """Returns {dotted name of a field that decides whether this one is read: values of it under which it is}."""
    section = name.rpartition(".")[0]
    rules = field_table()[name].option.read_by
    return {f"{section}.{leaf}": kinds for leaf, kinds in rules.items()}


def selecting(name: str, base: Config) -> dict[str, str]:
    """Returns the overrides of `base` under which a field is read; {} if `base` reads it already."""
    chosen: dict[str, str] = {}
    for selector, kinds in selectors(name).items():
        chosen |= selecting(selector, base)
        if flatten(base)[selector] not in kinds:
            chosen[selector] = kinds[0]
    return chosen


def other_values(name: str, value: Any) -> tuple[Any, ...]:
    """Returns values to try for a field in place of `value`, the likeliest to be valid first; () for free text."""
    kind = base_type(field_table()[name].type)
    if kind is tuple:
        return tuple((*value[:i], item / 2, *value[i + 1 :]) for i, item in enumerate(value))
    if kind is float:
        return (value / 2, value * 2, value + 0.5) if value else (0.5, 2.0)
    tried: dict[type, tuple[Any, ...]] = {bool: (True, False), int: (4, 2, 3, 8, 1, 0), str: choices(name)}
    return tuple(other for other in tried[kind] if other != value)
