"""The command line of every script: `--config PATH[:variant]`, `--config.a.b=value`, a script's own flags, `--help`.

A user's mistake, here or inside the script, prints one line `error: ...` on stderr and exits with status 2.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_core.config import Config, presets
from slm_core.config.conversion import convert, from_config_dict, parse_value, to_config_dict
from slm_core.config.fields import base_type, field_table, is_optional, nearest_field, unknown_field, wrong_type
from slm_core.config.validation import drop_unread, validate
from slm_core.errors import UserError, nearest

_BOOLEAN_WORDS = ("true", "false", "t", "f", "1", "0")


@dataclass(frozen=True)
class Flag:
    """A script's own flag `--name=value`, beside --config; `-` and `_` in names are the same.

    Args:
      name: without dashes in front.
      type: bool, int, float or str.
      default: the value when it is not given; its type, or None.
      help: meaning and unit, one line.
      choices: the valid values, where they are few.
      required: whether leaving it out is an error.
    """

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Invocation:
    """What a command line asks for.

    Args:
      config: checked, overrides applied; the schema's defaults for a command that takes no --config.
      preset: "llama-60m", "default"; names runs.
      config_given: whether --config was on the command line (a script may then do otherwise than with the default).
      overrides: {dotted name: value} of the fields set on the command line.
      flags: {name with underscores: value} of the script's own flags.
    """

    config: Config
    preset: str
    config_given: bool
    overrides: dict[str, Any]
    flags: dict[str, Any]


def main(
    run: Callable[[Invocation], object],
    description: str,
    extra_flags: Sequence[Flag] = (),
    *,
    takes_config: bool = True,
    needs_data: bool = True,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses the command line and calls `run`; returns when it succeeds and exits otherwise.

    Args:
      run: the script's work.
      description: what the script does; the head of --help.
      extra_flags: the script's own flags.
      takes_config: whether the command reads --config and its overrides.
      needs_data: whether it reads the config's data.
      argv: arguments without the program's name; None: those of the process.

    Raises:
      SystemExit: status 2 after a UserError, 130 after Ctrl-C, 0 after --help.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if any(word in ("-h", "--help") for word in words):
            _print_help(description, extra_flags, takes_config)
            raise SystemExit(0)
        invocation, notes = parse(words, extra_flags, takes_config=takes_config, needs_data=needs_data)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        run(invocation)
    except UserError as error:
        print("error:", " ".join(str(error).split("\n")), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _print_help(description: str, extra_flags: Sequence[Flag], takes_config: bool) -> None:
    from slm_core.cli.help import show

    try:
        show(os.path.relpath(sys.argv[0]), description, extra_flags, takes_config)
        sys.stdout.flush()
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(
    words: Sequence[str], extra_flags: Sequence[Flag] = (), *, takes_config: bool = True, needs_data: bool = True
) -> tuple[Invocation, list[str]]:
    """Returns what the words of a command line ask for, and notes for the user, one line each.

    Raises:
      UserError: an unknown flag or field, a value of a wrong type, a preset that fails, a config that isn't valid.
    """
    types = _flag_types(extra_flags, takes_config)
    given: dict[str, str] = {}
    for name, text in _pairs(words, types):
        given.pop(name, None)
        given[name] = text  # the last of repeated flags counts
    flags = _own_flags(given, extra_flags)
    if not takes_config:
        return Invocation(Config(), "", False, {}, flags), []
    config, preset = presets.load(given.get("config", presets.DEFAULT))
    texts = {name.removeprefix("config."): text for name, text in given.items() if name.startswith("config.")}
    overridden, overrides = override(config, texts)
    settled, notes = drop_unread(config, overridden, overrides)
    validate(settled, overrides, needs_data)
    return Invocation(settled, preset, "config" in given, overrides, flags), notes


def override(config: Config, texts: Mapping[str, str]) -> tuple[Config, dict[str, Any]]:
    """Sets fields by their dotted names from the text of a command line, as `config_flags` reads it.

    Returns:
      The new config, and {dotted name: value} of what was set.

    Raises:
      UserError: a text that the field's type cannot hold.
    """
    values: dict[str, Any] = {}
    config_dict = to_config_dict(config)
    for name, text in texts.items():
        config_dict, values[name] = _override_one(config_dict, name, text)
    return from_config_dict(config_dict), values


def _override_one(config_dict: Any, name: str, text: str) -> tuple[Any, Any]:
    from absl import flags
    from ml_collections import config_flags

    annotation = field_table()[name].type
    if is_optional(annotation) and text.lower() == "none":  # config_flags has no word for it
        config_dict.update_from_flattened_dict({name: None})
        return config_dict, None
    argv = ["", f"--config.{name}={text}"]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config_dict, flag_values=values, sys_argv=argv)
        values(argv)
        value = convert(name, values["config"].override_values[name], annotation)
    except (flags.Error, ValueError, TypeError, UserError):
        raise wrong_type(name, text, annotation) from None
    return values["config"].value, value


def _flag_types(extra_flags: Sequence[Flag], takes_config: bool) -> dict[str, type]:
    types: dict[str, type] = {_key(flag.name): flag.type for flag in extra_flags}
    if takes_config:
        types["config"] = str
        types |= {f"config.{name}": base_type(info.type) for name, info in field_table().items()}
    return types


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
        return rest.pop(0) if rest and rest[0].lower() in _BOOLEAN_WORDS else "true"
    if not rest or rest[0].startswith("--"):
        raise UserError(f"--{name} has no value: write --{name}=VALUE")
    return rest.pop(0)


def _unknown_flag(name: str, types: Mapping[str, type]) -> UserError:
    if name.startswith("config.") and "config" in types:
        return unknown_field(name.removeprefix("config."))
    if name.startswith("noconfig.") and "config" in types:
        return unknown_field(name.removeprefix("noconfig."))
    return UserError(f"--{name} is not a flag of this command{_flag_hint(name, types)}; --help lists them")


def _flag_hint(word: str, types: Mapping[str, type]) -> str:
    name = _key(word.partition("=")[0])
    own = [flag for flag in types if not flag.startswith("config.")]
    hint = nearest(name, own)
    if not hint and "config" in types:
        hint = nearest_field(name.removeprefix("config.")).replace("mean ", "mean config.")
    return hint.replace("mean ", "mean --")


def _own_flags(given: Mapping[str, str], extra_flags: Sequence[Flag]) -> dict[str, Any]:
    values = {}
    for flag in extra_flags:
        key = _key(flag.name)
        if key not in given:
            if flag.required:
                raise UserError(f"--{flag.name} is missing: {flag.help}")
            values[key] = flag.default
            continue
        values[key] = parse_value(f"--{flag.name}", given[key], flag.type)
        if flag.choices and values[key] not in flag.choices:
            hint = nearest(given[key], flag.choices)
            raise UserError(f"--{flag.name}={given[key]} is not one of {', '.join(flag.choices)}{hint}")
    return values
