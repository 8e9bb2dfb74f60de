"""The command line of every script: `--config PATH[:variant]`, `--config.a.b=value`, a script's own flags, `--help`.

A user's mistake, here or inside the script, prints one line `error: ...` on stderr and exits with status 2. So does
what the machine refuses: a full disk, a file that cannot be written, too little memory, a closed output.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm_core.cli.flags import STEP, Flag, flag_values, given_texts
from slm_core.config import Config, Run, presets
from slm_core.config.fields import field_table, with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.config.values import parse_value
from slm_core.errors import UserError

__all__ = ["STEP", "Flag", "Invocation", "main", "override", "parse"]


@dataclass(frozen=True)
class Invocation:
    """A checked command line: its config, and the values of its flags.

    Args:
      config: checked, overrides applied; the schema's defaults for a command that takes no --config.
      preset: "llama-60m", "default"; names runs.
      config_given: whether --config was on the command line; a script may treat a chosen preset in another way.
      overrides: {dotted name: value} of the fields set on the command line.
      flags: {name with underscores: value} of the script's own flags.
      path: the preset as --config names it, "configs/llama.py:60m".
    """

    config: Config
    preset: str
    config_given: bool
    overrides: dict[str, Any]
    flags: dict[str, Any]
    path: str = presets.DEFAULT


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
      run: does the script's work.
      description: the head of --help; says what the script does.
      extra_flags: the script's own flags.
      takes_config: whether the command reads --config and its overrides.
      needs_data: whether the command reads the data that the config names.
      argv: arguments without the program's name; None takes those of the process.

    Raises:
      SystemExit: status 2 after a UserError or what the machine refuses, 130 after Ctrl-C, 0 after --help and
        --help SECTION.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    _open_closed_streams()
    _print_any_character()
    try:
        _check_text(words)
        asked, section = asked_help(words)
        if asked:
            _print_help(description, extra_flags, takes_config, section)
            raise SystemExit(0)
        invocation, notes = parse(words, extra_flags, takes_config=takes_config, needs_data=needs_data)
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        run(invocation)
        sys.stdout.flush()  # else Python does it as it ends, and tells of a failure in its own words
    except UserError as error:
        print("error:", one_line(error), file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        if error.filename is None:
            drop_output()
        print("error:", one_line(machine_error(error)), file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BaseException as error:  # a panic of Rust is no Exception
        if isinstance(error, SystemExit) or not out_of_memory(error):
            raise
        print(f"error: {NO_MEMORY}", file=sys.stderr)
        raise SystemExit(2) from None


_REMEDIES = {
    errno.ENOSPC: "make room on the disk, then run the same command again",
    errno.EDQUOT: "make room in your quota, then run the same command again",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "check its permissions, or name another",
    errno.EPERM: "check its permissions, or name another",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EFBIG: "the file system or ulimit -f allows no larger file: name a folder elsewhere, or raise the limit",
    errno.ENOMEM: "close other programs, or give the process more memory",
    errno.EMFILE: "let the process open more files: ulimit -n 4096",
    errno.ENFILE: "close other programs: the machine has too many open files",
    errno.EIO: "check the disk",
    errno.EPIPE: "its reader ended; write the output to a file instead",
}
"""{what the machine says: what to do}."""


NO_MEMORY = (
    "the memory is full: close other programs, raise the limit of the process, or make train.micro_batch_size, "
    "data.seq_len or the model smaller"
)


def out_of_memory(error: BaseException) -> bool:
    """Says whether an exception of Python, of a framework or of Rust means that no more memory could be had."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY_TEXTS)


_NO_MEMORY_TEXTS = (
    "can't allocate memory", "out of memory", "RESOURCE_EXHAUSTED", "can't start new thread", "ThreadPoolBuildError",
)  # fmt: skip
"""What the exceptions of PyTorch, JAX and Rust say. A thread that cannot start lacks the memory of its stack."""


def machine_error(error: OSError) -> str:
    """Returns what failed on the machine, why, and what to do."""
    what = error.filename or ("standard output" if error.errno == errno.EPIPE else "a file")
    return f"{what}: {error.strerror}; {_REMEDIES[error.errno or 0]}"


def one_line(error: UserError | str) -> str:
    """Returns an error, or its text, as one line, in which what a terminal would obey is written as its escape."""
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _open_closed_streams() -> None:
    """Sends the output of a process that was started without one (`>&-`) nowhere.

    Else the next file that is opened gets the stream's number, and what a library prints goes into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number: the stream's
            setattr(sys, name, os.fdopen(handle, "w" if number else "r", closefd=False))


def _print_any_character() -> None:
    """Lets a character that the terminal's encoding lacks be printed as its escape, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_text(words: Sequence[str]) -> None:
    """Raises UserError for a word with bytes that are not UTF-8: they could be neither shown nor written to JSON."""
    for word in words:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            shown = word.encode("utf-8", "backslashreplace").decode()
            raise UserError(f"{shown}: it has bytes that are not UTF-8; write it in UTF-8, or rename the file")


def asked_help(words: Sequence[str]) -> tuple[bool, str]:
    """Returns whether the words ask for help, and the section that they name: `--help optim` or `--help=optim`."""
    for index, word in enumerate(words):
        flag, _, section = word.partition("=")
        if flag in ("-h", "--help"):
            following = words[index + 1] if index + 1 < len(words) else ""
            return True, section or ("" if following.startswith("-") else following)
    return False, ""


def _print_help(description: str, extra_flags: Sequence[Flag], takes_config: bool, section: str) -> None:
    from slm_core.cli.help import show, show_section

    try:
        if section:
            show_section(section, takes_config)
        else:
            show(os.path.relpath(sys.argv[0]), description, extra_flags, takes_config)
        sys.stdout.flush()
    except BrokenPipeError:  # `--help | head`
        drop_output()


def drop_output() -> None:
    """Sends what waits to be printed nowhere, so that Python does not fail once more when it ends."""
    with contextlib.suppress(OSError, ValueError):  # a test's output is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(
    words: Sequence[str], extra_flags: Sequence[Flag] = (), *, takes_config: bool = True, needs_data: bool = True
) -> tuple[Invocation, list[str]]:
    """Parses the words of a command line into what they ask for, and notes for the user, one line each.

    Raises:
      UserError: an unknown flag or field, a value of a wrong type, a preset that fails, or a config that is not valid.
    """
    given = given_texts(words, extra_flags, takes_config)
    flags = flag_values(given, extra_flags)
    if not takes_config:
        return Invocation(Config(), "", False, {}, flags), []
    path = given.get("config", [presets.DEFAULT])[-1]
    texts = {name.removeprefix("config."): each[-1] for name, each in given.items() if name.startswith("config.")}
    config, preset = (None if "config" in given else _settings_of_a_run(texts)) or presets.load(path)
    overridden, overrides = override(config, texts)
    readable, notes = drop_unread(config, overridden, overrides)
    validate(readable, overrides, needs_data)
    return Invocation(readable, preset, "config" in given, overrides, flags, path), notes


def _settings_of_a_run(texts: Mapping[str, str]) -> tuple[Config, str] | None:
    """Returns the settings and the name of the run that a command continues or branches off from, if any.

    Args:
      texts: {dotted field: text} of the command line.

    Raises:
      UserError: there is no such run.
    """
    folder = texts.get("run.resume_from")
    if not folder and texts.get("run.branch") and texts.get("run.name"):
        folder = str(Path(texts.get("run.dir", Run().dir), texts["run.name"]))
    if not folder:
        return None
    from slm_core.runs.description import read_description

    try:
        config: Config = read_description(Path(folder))["config"]
    except UserError as error:
        field = "run.resume_from" if texts.get("run.resume_from") else "run.name"
        raise UserError(f"{field}: {error}") from None
    return replace(config, run=Run()), Path(folder).resolve().name


def override(config: Config, texts: Mapping[str, str]) -> tuple[Config, dict[str, Any]]:
    """Sets fields by their dotted names from the text of a command line.

    Returns:
      The new config, and {dotted name: value} of what was set.

    Raises:
      UserError: a text that the field's type cannot hold.
    """
    values = {name: parse_value(name, text, field_table()[name].type) for name, text in texts.items()}
    return with_values(config, values), values
