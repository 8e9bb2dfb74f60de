"""The words of a command line, split into flags and their texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_core.config.fields import base_type, field_table, nearest_field, unknown_field
from slm_core.config.values import BOOLEANS, parse_value
from slm_core.errors import UserError, nearest


@dataclass(frozen=True)
class Flag:
    """A script's own flag `--name=value`, beside --config; `-` and `_` in names are the same.

    Args:
      name: without dashes in front.
      type: bool, int, float or str.
      default: the value if the flag is not given; its type, or None.
      help: meaning and unit, one line.
      choices: the valid values, if they are few.
      required: whether leaving it out is an error.
      repeated: whether it may be given several times; its value is then the tuple of all of them.
    """

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False
    repeated: bool = False


STEP = Flag("step", str, "", "checkpoint to take: its step, or best (see train.keep_best); empty: the newest")
"""Chooses a checkpoint of a run, as `slm_core.runs.chosen.at_step` reads it."""


def given_texts(words: Sequence[str], extra_flags: Sequence[Flag], takes_config: bool) -> dict[str, list[str]]:
    """Splits words into {name: its texts} of the flags that they give, in the order of their last texts.

    Names have no dashes in front, and `_` for `-`; a field of the config is "config.a.b".

    Raises:
      UserError: an unknown flag or field, a flag without its value, or a word that is not part of a flag.
    """
    types: dict[str, type] = {_key(flag.name): flag.type for flag in extra_flags}
    if takes_config:
        types["config"] = str
        types |= {f"config.{name}": base_type(info.type) for name, info in field_table().items()}
    given: dict[str, list[str]] = {}
    for name, text in _pairs(words, types):
        given[name] = [*given.pop(name, ()), text]
    return given


def flag_values(given: Mapping[str, Sequence[str]], extra_flags: Sequence[Flag]) -> dict[str, Any]:
    """Parses {name: value} of a script's own flags; a flag that is not given has its default.

    The last text of a flag counts, unless the flag is `repeated`.

    Raises:
      UserError: a required flag is missing, a text does not have the flag's type, or it is not one of its choices.
    """
    values = {}
    for flag in extra_flags:
        key = _key(flag.name)
        if key not in given:
            if flag.required:
                raise UserError(f"--{flag.name} is missing: {flag.help}")
            values[key] = flag.default
            continue
        parsed = tuple(_parsed(flag, text) for text in given[key])
        values[key] = parsed if flag.repeated else parsed[-1]
    return values


def _parsed(flag: Flag, text: str) -> Any:
    value = parse_value(f"--{flag.name}", text, flag.type)
    if flag.choices and value not in flag.choices:
        hint = nearest(text, flag.choices)
        raise UserError(f"--{flag.name}={text} is not one of {', '.join(flag.choices)}{hint}")
    return value


def _key(name: str) -> str:
    return name if name.startswith("config.") else name.replace("-", "_")


def _pairs(words: Sequence[str], types: Mapping[str, type]) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of `--name=text`, `--name text`, and `--name` and `--noname` of a boolean."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            continue
        if not word.startswith("-") or word == "-":
            raise UserError(f"unexpected argument '{word}': write flags as --name=value{_flag_hint(word, types)}")
        name, equals, text = word.lstrip("-").partition("=")
        name = _key(name)
        negated = name.removeprefix("no")
        if not equals and name not in types and types.get(negated) is bool:
            name, equals, text = negated, "=", "false"
        if name not in types:
            raise _unknown_flag(name, types)
        if not equals:
            text = _next_word(name, types[name], rest)
        yield name, text


def _next_word(name: str, kind: type, rest: list[str]) -> str:
    if kind is bool:
        return rest.pop(0) if rest and rest[0].lower() in BOOLEANS else "true"
    if not rest or rest[0].startswith("--"):
        raise UserError(f"--{name} has no value: write --{name}=VALUE")
    return rest.pop(0)


def _unknown_flag(name: str, types: Mapping[str, type]) -> UserError:
    for prefix in ("config.", "noconfig."):
        if name.startswith(prefix) and "config" in types:
            return unknown_field(name.removeprefix(prefix))
    return UserError(f"--{name} is not a flag of this command{_flag_hint(name, types)}; --help lists them")


def _flag_hint(word: str, types: Mapping[str, type]) -> str:
    name = _key(word.partition("=")[0])
    script_flags = [flag for flag in types if not flag.startswith("config.")]
    hint = nearest(name, script_flags)
    if not hint and "config" in types:
        hint = nearest_field(name.removeprefix("config.")).replace("mean ", "mean config.")
    return hint.replace("mean ", "mean --")
