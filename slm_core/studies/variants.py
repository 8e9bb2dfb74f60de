"""The variants of a study: what the user asks to compare, as overrides of one base config."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import field_table, unknown_field, with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.config.values import parse_value, value_text
from slm_core.errors import UserError


@dataclass(frozen=True)
class Variant:
    """One of the things that a study compares.

    Args:
      name: shown in tables; unique in the study.
      overrides: {dotted field: value} over the study's base config.
    """

    name: str
    overrides: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """The name as a part of a folder's name."""
        return re.sub(r"[^\w.+=-]+", "_", self.name).strip("_")


def make_variants(vary: Sequence[str], named: Sequence[str]) -> tuple[Variant, ...]:
    """Makes the variants of a command line.

    Args:
      vary: "FIELD=VALUE,VALUE,...", the texts of --vary. Their product is taken.
      named: "NAME: FIELD=VALUE FIELD=VALUE", the texts of --variant.

    Returns:
      The variants in the user's order; the first is the baseline.

    Raises:
      UserError: a text that cannot be read, a field that does not exist, or fewer than two variants.
    """
    if vary and named:
        raise UserError(
            "--vary with --variant: a study has either a product of values or named variants; leave one out"
        )
    variants = _product(vary) if vary else tuple(map(_named, named))
    if len(variants) < 2:
        raise UserError(
            "a study compares at least two variants: give --vary=FIELD=VALUE,VALUE or --variant=NAME:... twice"
        )
    refuse_repeated("the name", [variant.slug for variant in variants])
    return variants


def refuse_repeated(what: str, values: Sequence[Any]) -> None:
    """Raises UserError if two variants have the same value."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise UserError(f"variants {values.index(value) + 1} and {index + 1} have {what} {value!r}: change one")


def variant_config(base: Config, overrides: Mapping[str, Any], what: str) -> Config:
    """Applies overrides to a checked config, as a command line does, and checks the result.

    Args:
      what: says in an error what the overrides are of.

    Raises:
      UserError: the config is not valid.
    """
    try:
        config, _ = drop_unread(base, with_values(base, dict(overrides)), overrides)
        validate(config, overrides)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    return config


def _product(vary: Sequence[str]) -> tuple[Variant, ...]:
    choices = [_values(text) for text in vary]
    fields = [name for name, _ in choices]
    for name in fields:
        if fields.count(name) > 1:
            raise UserError(f"--vary={name}=... is given twice: put all its values into one, with commas between them")
    named = [[(name, value) for value in values] for name, values in choices]
    return tuple(Variant(_product_name(pairs), dict(pairs)) for pairs in itertools.product(*named))


def _values(text: str) -> tuple[str, list[Any]]:
    name, equals, values = text.partition("=")
    name = name.strip().removeprefix("config.")
    if not equals or not values:
        raise UserError(f"--vary={text}: write --vary=FIELD=VALUE,VALUE")
    return name, [_value(name, value) for value in _split(values)]


def _split(text: str) -> list[str]:
    """Splits at the commas that are outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _value(name: str, text: str) -> Any:
    if name not in field_table():
        raise unknown_field(name)
    return parse_value(name, text, field_table()[name].type)


def _product_name(pairs: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(shown(name, value) for name, value in pairs)


def shown(name: str, value: Any) -> str:
    """Names a field's value in the name of a variant: "rope" of a kind, "n_kv_heads=1" of another field."""
    text = value_text(value)
    return text if name.endswith("kind") else f"{name.rpartition('.')[2]}={text}"


def _named(text: str) -> Variant:
    name, colon, settings = text.partition(":")
    if not colon or not name.strip() or "=" in name:
        raise UserError(
            f"--variant={text!r}: write --variant='NAME: FIELD=VALUE FIELD=VALUE'; a baseline may have no field"
        )
    return Variant(name.strip(), dict(map(_setting, settings.split())))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--variant: {text!r} is not FIELD=VALUE; values with spaces go into a study file")
    name = name.removeprefix("config.")
    return name, _value(name, value)
