"""Values for the fields of the schema: from the text of a command line or a pattern, and from plain Python."""

import ast
import typing
from collections.abc import Callable, Iterable
from typing import Any

from slm_core.config.fields import base_type, is_optional, wrong_type

BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def parse_value(name: str, text: str, annotation: Any) -> Any:
    """Parses the text of a value, as `config_flags` of ml_collections does; "none" is None if the type allows it.

    Args:
      name: what errors call the value.
      text: as the user wrote it.
      annotation: the type of the value.

    Raises:
      UserError: the type cannot hold the text; names it, the text and what to give instead.
    """
    if is_optional(annotation) and text.lower() == "none":
        return None
    try:
        value = _PARSERS[base_type(annotation)](text)
    except (KeyError, ValueError, TypeError, SyntaxError):
        raise wrong_type(name, text, annotation) from None
    if not accepts(annotation, value):
        raise wrong_type(name, text, annotation)
    return convert(name, value, annotation)


def value_text(value: Any) -> str:
    """Writes a value as `parse_value` reads it, and as a user types it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _parse_bool(text: str) -> bool:
    return BOOLEANS[text.lower()]


def _parse_int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _parse_items(text: str) -> tuple[Any, ...]:
    """Evaluates the items of a tuple, written as Python literals with or without brackets around them."""
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: float,
    str: str,
    tuple: _parse_items,
}


def convert(name: str, value: Any, annotation: Any) -> Any:
    """Converts a Python value to the annotated type: a whole number to a float, a list to a tuple.

    Raises:
      UserError: the value is of another type; names the field.
    """
    if not accepts(annotation, value):
        raise wrong_type(name, repr(value), annotation)
    if value is None:
        return None
    if base_type(annotation) is tuple:
        return tuple(item(part) for part, item in zip(value, typing.get_args(annotation), strict=True))
    return base_type(annotation)(value)


def accepts(annotation: Any, value: Any) -> bool:
    """Returns whether a value of the annotated type can hold this Python value without loss."""
    base = base_type(annotation)
    if value is None:
        return is_optional(annotation)
    if base is tuple:
        items = typing.get_args(annotation)
        return isinstance(value, (tuple, list)) and len(items) == len(value) and all(map(accepts, items, value))
    if isinstance(value, bool):
        return base is bool
    return isinstance(value, (int, float) if base is float else base)
