"""How a field of the schema is declared."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KEY = "option"


@dataclass(frozen=True)
class Option:
    """What the schema says of one field, beside its type and its default.

    Args:
      doc: meaning and unit, one line; shown by `--help`.
      choices: the valid values of a field that has a list of them, each with one line of meaning; else empty.
      read_by: {selector field of the same section: its values under which this field is read}; empty means always.
      low, above, high, below: inclusive minimum, exclusive minimum, inclusive maximum, exclusive maximum.
      per_layer: whether model.pattern can set this field of attention, position, norm or mlp.
      forms: valid values that are not listed, "WORD:NAME": the word and any name.
      whole_model: the choices that act once per model, so that model.pattern cannot set them.
      experimental: the choices that train and are proven, but lack some of what every component has. Tests name what
        is missing.
    """

    doc: str
    choices: Mapping[str, str]
    read_by: Mapping[str, tuple[str, ...]]
    low: float | None
    above: float | None
    high: float | None
    below: float | None
    per_layer: bool
    whole_model: tuple[str, ...]
    forms: tuple[str, ...] = ()
    experimental: tuple[str, ...] = ()

    def meanings(self) -> dict[str, str]:
        """Returns {choice: its line of meaning}, with a mark behind that of an experimental one."""
        return {
            choice: f"{meaning} (experimental)" if choice in self.experimental else meaning
            for choice, meaning in self.choices.items()
        }


def option(
    default: Any,
    doc: str,
    *,
    choices: Mapping[str, str] | None = None,
    forms: tuple[str, ...] = (),
    read_by: Mapping[str, tuple[str, ...]] | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    per_layer: bool = True,
    whole_model: tuple[str, ...] = (),
    experimental: tuple[str, ...] = (),
) -> Any:
    """Declares one field of a config section, by its default and the fields of its `Option`."""
    declared = Option(
        doc, choices or {}, read_by or {}, low, above, high, below, per_layer, whole_model, forms, experimental
    )
    return dataclasses.field(default=default, metadata={_KEY: declared})


def options(section: type) -> dict[str, Option]:
    """Returns {field: Option} of a section's own fields; one that a subclass narrows keeps the option of its base."""
    found: dict[str, Option] = {}
    for base in reversed(section.__mro__):
        for field in vars(base).get("__dataclass_fields__", {}).values():
            if _KEY in field.metadata:
                found[field.name] = field.metadata[_KEY]
    return found
