"""Writes docs/formulas.md, the formulas beside their outside sources: a pytest plugin.

A test of a formula records the property "formula": [about, "torch" or "flax" or "both", difference]. That works across
the processes of pytest-xdist.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.mutation_score import finished, properties

COMMAND = "uv run pytest tests/outside --formula-page docs/formulas.md"
INTRODUCTION = """# Formulas and their outside sources

Written by `{command}`, not by hand.
Twins can be equal and both wrong. So every formula is compared with what others wrote: inside whole models of Hugging
Face transformers ([oracle.md](oracle.md)), or, one by one, with code of a library or with numbers of a paper. A test
demands one of the two for each kind of the schema, or a reason why there is none.

**{formulas} formulas compared one by one, {kinds} kinds inside whole models, {without} without a source.**

## One by one
The difference is the largest one, divided by the largest number of the source. `slm_core` computes for both twins what
has one difference. A tolerance is {rounding:.0e}, unless a reason is given.

"""
KINDS = """

## Inside whole models
These kinds are in the models of [oracle.md](oracle.md), which has the differences of logits and gradients.

"""
WITHOUT = """

## Without an outside source
These are compared with a formula that the tests write down a third time, in NumPy.

"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--formula-page", metavar="FILE", help="write the formulas and their outside sources to a page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    page = config.getoption("--formula-page")
    if not page:
        return
    measured: dict[str, dict[str, float]] = {}
    for about, where, difference in properties(finished(terminalreporter), "formula"):
        measured.setdefault(about, {})[where] = difference
    Path(page).write_text(markdown(measured), encoding="utf-8")
    terminalreporter.line(f"written: {page}")


def markdown(measured: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the page.

    Args:
      measured: {formula: {"torch", "flax" or "both": difference}}.
    """
    from slm_core.studies.tables import markdown_table
    from tests.outside import table
    from tests.outside.families import kinds_of_families

    families = kinds_of_families()
    text = INTRODUCTION.format(
        command=COMMAND, formulas=len(table.FORMULAS), kinds=len(families), without=len(table.WITHOUT), rounding=1e-11
    )
    rows = []
    for formula in table.FORMULAS:
        differences = measured[formula.about]
        shown = [f"{differences[where]:.0e}" for where in ("both", "torch", "flax") if where in differences]
        rows.append([f"`{formula.about}`", formula.source, ", ".join(dict.fromkeys(shown)), formula.why])
    text += markdown_table(["formula", "source", "difference", "why it is above rounding"], rows) + KINDS
    rows = [[f"`{kind}`", _names(names)] for kind, names in sorted(families.items())]
    text += markdown_table(["kind", "families"], rows) + WITHOUT
    return text + markdown_table(["setting", "why"], [[f"`{name}`", why] for name, why in table.WITHOUT.items()]) + "\n"


def _names(families: list[str]) -> str:
    more = len(families) - 4
    return ", ".join(families[:4]) + (f" and {more} more" if more > 0 else "")
