"""`--help`: description, examples, presets, a script's own flags, and every field of the config; 40 to 100 columns."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from slm_core.cli.flags import Flag
from slm_core.config import presets
from slm_core.config.fields import FieldInfo, Section, field_table, sections, type_name
from slm_core.config.option import Option
from slm_core.config.values import value_text
from slm_core.errors import UserError, nearest

_BOLD, _CYAN, _DIM = "1", "36", "2"
_SPACE = "\u00a0"  # keeps a bound on one line; printed as a space
_NOTE_WIDTH = 48  # columns that a note gets at least, however wide names and defaults are
_WIDE = 80  # from this many columns on, fields are in a table
_BESIDE = 16  # columns that a text needs beside its head
_BELOW = 8  # indent of a text below its head

Paint = Callable[[str, str], str]
"""Puts a text into an ANSI code, or leaves it as it is."""


class Row(NamedTuple):
    """One line of a table: a field or a flag. `notes` are (label, text) pairs below it."""

    name: str
    kind: str
    default: str
    doc: str
    notes: list[tuple[str, str]]


def show(program: str, description: str, extra_flags: Sequence[Flag] = (), takes_config: bool = True) -> None:
    """Prints the help of a script to stdout, in colour on a terminal."""
    for line in lines(program, description, extra_flags, takes_config, painter(sys.stdout.isatty()), _width()):
        print(line)


def show_section(name: str, takes_config: bool) -> None:
    """Prints the help of one section of the config, `--help optim`, or of the section that a field is in.

    Raises:
      UserError: there is no such section, or the command reads no config.
    """
    name = name.removeprefix("--").removeprefix("config.").rstrip(".")
    known = {section.name or "seed": section for section in sections()}
    if not takes_config:
        raise UserError(f"--help {name}: this command has no sections; --help shows all of it")
    section = known.get(name) or known.get(name.rpartition(".")[0] if name in field_table() else "")
    if section is None:
        raise UserError(f"--help {name}: the sections are {', '.join(known)}{nearest(name, known)}")
    for line in _section(section, painter(sys.stdout.isatty()), _width()):
        print(line)


def _width() -> int:
    return min(100, max(40, shutil.get_terminal_size((100, 24)).columns))


def painter(colour: bool) -> Paint:
    """Returns a function that colours text, or one that does not: without `colour`, or if NO_COLOR is set."""
    colour = colour and "NO_COLOR" not in os.environ
    return lambda text, code: f"\033[{code}m{text}\033[0m" if colour and text else text


def lines(
    program: str, description: str, extra_flags: Sequence[Flag], takes_config: bool, paint: Paint, width: int
) -> Iterator[str]:
    """Yields the lines of the help.

    Args:
      program: how the user calls the script, after `uv run`.
      description: what it does.
      extra_flags: the script's own flags.
      takes_config: whether it reads --config.
      paint: colours.
      width: columns.
    """
    yield from textwrap.wrap(description, width)
    yield from _usage(program, extra_flags, takes_config, paint)
    if extra_flags:
        yield ""
        yield paint("Flags", _BOLD)
        yield from _table([_flag_row(flag) for flag in extra_flags], paint, width)
    if takes_config:
        yield from _presets(paint, width)
        yield ""
        legend = "field, type, default, meaning; then its valid values, and the values under which it is read"
        yield from _hanging(paint("Configuration", _BOLD) + "   ", 16, legend, width)
        for section in sections():
            yield ""
            yield from _section(section, paint, width)


def _usage(program: str, extra_flags: Sequence[Flag], takes_config: bool, paint: Paint) -> Iterator[str]:
    needed = "".join(f" --{flag.name}=..." for flag in extra_flags if flag.required)
    yield ""
    yield paint("Usage", _BOLD)
    yield f"  uv run {program}{needed}"
    if takes_config:
        yield f"  uv run {program}{needed} --config configs/llama.py:tiny"
        yield f"  uv run {program}{needed} --config.model.attention.n_kv_heads=2 --config.optim.betas=0.9,0.99"
        yield f"  uv run {program}{needed} --config.data.source=text --config.data.path=FOLDER"


def _presets(paint: Paint, width: int) -> Iterator[str]:
    yield ""
    yield from _hanging(
        paint("Presets", _BOLD) + "   ", 10, f"--config PATH[:variant]; without it {presets.DEFAULT}", width
    )
    for preset in presets.listing():
        yield from _hanging(f"  {paint(preset.path, _CYAN)}  ", 4 + len(preset.path), preset.doc, width)
        size = max([14, *(len(variant) + 3 for variant in preset.variants)])
        for variant, doc in preset.variants.items():
            doc += " [default]" if variant == preset.default else ""
            yield from _hanging(f"    {paint((':' + variant).ljust(size), _CYAN)}", 4 + size, doc, width)


def _section(section: Section, paint: Paint, width: int) -> Iterator[str]:
    prefix = f"--config.{section.name}." if section.name else "--config."
    yield from _hanging(f"{paint(prefix, _BOLD)}   ", len(prefix) + 3, section.doc.rstrip("."), width)
    yield from _table([_field_row(info) for info in section.fields], paint, width)


def _field_row(info: FieldInfo) -> Row:
    option = info.option
    notes = list(option.meanings().items())
    for selector, kinds in option.read_by.items():
        notes.append(("read by", f"{selector}={' | '.join(kinds)}"))
    leaf = info.name.rpartition(".")[2]
    return Row(leaf, type_name(info.type), default_text(info.default), option.doc + _bounds(option), notes)


def _flag_row(flag: Flag) -> Row:
    notes = [("one of", ", ".join(flag.choices))] if flag.choices else []
    default = "required" if flag.required else "may repeat" if flag.repeated else default_text(flag.default)
    return Row(f"--{flag.name}", flag.type.__name__, default, flag.help, notes)


def default_text(value: Any) -> str:
    """Writes a default as a user types it."""
    return value_text(value) or "''"


def _bounds(option: Option) -> str:
    bounds = {">=": option.low, ">": option.above, "<=": option.high, "<": option.below}
    parts = [f"{sign}{_SPACE}{bound}" for sign, bound in bounds.items() if bound is not None]
    return f" ({f',{_SPACE}'.join(parts)})" if parts else ""


def _table(rows: Sequence[Row], paint: Paint, width: int) -> Iterator[str]:
    columns = width >= _WIDE
    sizes = [max(len(row[column]) for row in rows) if columns else 0 for column in range(3)]
    indent = 2 + sum(sizes) + 6 if columns else width
    note_indent = min(indent + 1, width - _NOTE_WIDTH) if columns else 6
    for name, kind, default, doc, notes in rows:
        cells = f"{paint(name.ljust(sizes[0]), _CYAN)}  {paint(kind.ljust(sizes[1]), _DIM)}  {default.ljust(sizes[2])}"
        yield from _hanging(f"  {cells}  ", indent, doc, width)
        label_width = max((len(label) for label, _ in notes), default=0)
        for label, text in notes:
            head = " " * note_indent + paint(label.ljust(label_width), _DIM) + "  "
            yield from _hanging(head, note_indent + 2 + label_width, text, width)


def _hanging(head: str, indent: int, text: str, width: int) -> Iterator[str]:
    """Yields `head` and the text wrapped beside it, or below it if the screen is narrow.

    Args:
      indent: the head's width on the screen.
    """
    if width - indent < _BESIDE:
        yield head.rstrip()
        head, indent = " " * _BELOW, _BELOW
    wrapped = textwrap.wrap(text, width - indent, break_on_hyphens=False) or [""]
    wrapped = [line.replace(_SPACE, " ") for line in wrapped]
    yield (head + wrapped[0]).rstrip()
    yield from (" " * indent + line for line in wrapped[1:])
