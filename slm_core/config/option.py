"""How a field of the schema is declared."""

import dataclasses
from typing import Any


def option(
    default: Any,
    doc: str,
    *,
    choices: dict[str, str] | None = None,
    forms: tuple[str, ...] = (),
    read_by: dict[str, tuple[str, ...]] | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    per_layer: bool = True,
) -> Any:
    """Declares one config field.

    Args:
      default: the value when nothing sets it.
      doc: meaning and unit, one line; shown by `--help`.
      choices: the valid values of a kind-like field, each with one line of meaning.
      forms: valid values that are not listed, "WORD:NAME": the word and any name.
      read_by: {selector field of the same section: values of it under which this field is read}; absent means always.
      low, above, high, below: inclusive minimum, exclusive minimum, inclusive maximum, exclusive maximum.
      per_layer: False: model.pattern cannot set this field of attention, position, norm or mlp.
    """
    metadata = dict(
        doc=doc,
        choices=choices,
        forms=forms,
        read_by=read_by,
        low=low,
        above=above,
        high=high,
        below=below,
        per_layer=per_layer,
    )
    return dataclasses.field(default=default, metadata=metadata)
