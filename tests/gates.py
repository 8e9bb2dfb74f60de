"""Gates: what every component must have. An experimental one is named for what it still lacks, instead of failing."""

import warnings
from collections.abc import Mapping

import pytest

from slm_core.config.fields import field_table


def experimental() -> set[str]:
    """Returns the experimental choices ("dyt", "kind=dyt"), and the fields that only they read ("norm.alpha")."""
    names: set[str] = set()
    for name, info in field_table().items():
        leaf = name.rpartition(".")[2]
        names |= {text for kind in info.option.experimental for text in (kind, f"{leaf}={kind}")}
        if _only_experimental_kinds_read(name):
            names |= {name, name.removeprefix("model.")}
    return names


def require(missing: Mapping[str, str]) -> None:
    """Fails a test for what components lack; for an experimental one, it warns.

    Args:
      missing: {component, or a field that it reads: what is missing, and where it goes}.
    """
    excused = experimental() & missing.keys()
    for name in sorted(excused):
        warnings.warn(f"{name} is experimental, and still lacks {missing[name]}", stacklevel=2)
    lacking = [f"{name} lacks {what}" for name, what in missing.items() if name not in excused]
    if lacking:
        pytest.fail("\n".join(sorted(lacking)), pytrace=False)


def _only_experimental_kinds_read(name: str) -> bool:
    section, table = name.rpartition(".")[0], field_table()
    return any(
        set(kinds) <= set(table[f"{section}.{selector}"].option.experimental)
        for selector, kinds in table[name].option.read_by.items()
    )
