"""What benchmarks of single calls share: checks of their flags, and a run that measures, shows and saves."""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_core.errors import UserError, nearest

if TYPE_CHECKING:
    from slm_core.studies.attention import Case, Result

MEMORY_CONTEXTS = "1024,2048,4096,8192,16384"
"""The contexts with --memory, unless --contexts names others."""


def words(flags: Mapping[str, Any], name: str, known: tuple[str, ...]) -> list[str]:
    """Splits a flag at its commas. Raises UserError for a word that is not known."""
    parts = flags[name].split(",")
    for word in parts:
        if word not in known:
            raise UserError(f"--{name}: {word!r} is not one of {', '.join(known)}{nearest(word, known)}")
    return parts


def contexts(flags: Mapping[str, Any], default: str) -> list[int]:
    """Returns the contexts of --contexts, in tokens; `default` are those of times. Raises UserError if one is none."""
    given = flags["contexts"] or (MEMORY_CONTEXTS if flags["memory"] else default)
    if not all(word.isdecimal() and int(word) for word in given.split(",")):
        raise UserError(f"--contexts={given} must be numbers of tokens with commas, like {default}")
    return [int(word) for word in given.split(",")]


def check_at_least(flags: Mapping[str, Any], lows: Mapping[str, float]) -> None:
    """Raises UserError for a flag that is lower than it may be."""
    for name, low in lows.items():
        if flags[name] < low:
            raise UserError(f"--{name.replace('_', '-')}={flags[name]} must be at least {low}")


def run(
    flags: Mapping[str, Any],
    chosen: list["Case"],
    makes: dict[str, Callable[..., Callable[[], object]]],
    shown: Callable[[list["Result"], bool], str],
) -> None:
    """Measures the cases, prints them and writes --json.

    Args:
      makes: {twin: makes the call of a case}.
      shown: makes the text of results, of memory or else of time.
    """
    from slm_core.studies import attention
    from slm_core.studies.machine import machine

    os.environ["JAX_PLATFORMS"] = "cpu"
    say = functools.partial(print, flush=True)
    say(machine())
    if os.getloadavg()[0] > 0.5:
        say("note: something else is running on this machine; trust the ratios more than the times")
    if flags["memory"]:
        freeing = makes | {"PyTorch": functools.partial(makes["PyTorch"], keep_freed=False)}
        results = attention.memory(freeing, chosen, say)
    else:
        results = attention.times(makes, chosen, flags["rounds"], say)
    say(f"\n{shown(results, flags['memory'])}")
    if flags["json"]:
        numbers = {"machine": machine(), "results": [dataclasses.asdict(result) for result in results]}
        Path(flags["json"]).write_text(json.dumps(numbers, indent=1) + "\n")
