"""Lists the tiny models of the oracle: the examples of every family."""

from dataclasses import dataclass
from typing import Any

from slm_core.hf import FAMILIES


@dataclass(frozen=True)
class Case:
    """A tiny model of a family.

    Args:
      family: model_type.
      name: model_type, and the options that are on.
      values: arguments of the config class.
      float64: whether the class computes in float64 throughout.
    """

    family: str
    name: str
    values: dict[str, Any]
    float64: bool


CASES = tuple(
    Case(family.model_type, ", ".join(filter(None, (family.model_type, options))), dict(values), family.float64)
    for family in FAMILIES.values()
    for options, values in family.examples.items()
)
