"""Writes the counts of a sweep of imports, for a terminal and as docs/imports.md."""

import re
from collections import Counter
from collections.abc import Sequence

from parity.oracle.imports_judge import OUTCOMES, REFUSED, Verdict, counts
from slm_core.hf import FAMILIES
from slm_core.studies.tables import markdown_table

INTRODUCTION = """# Imports: equal or refused, never wrong

Written by `{command}`. Do not edit.

Each variant is the config.json of a tiny checkpoint in which one field has another value, or two fields have. The
fields are all that the class of transformers declares, and all that it asks for in a forward pass. The values are those
of published checkpoints, and odd ones: absent, null, 0, 0.0, false, another type, short and long lists. A tenth of the
variants keeps the tensors of the unchanged checkpoint, so that file and config.json may contradict each other.

- **equal**: the twin's logits are those of the class, for a prompt and for decoding with a cache. The largest
  difference is at most {tolerance:.0e} of their root mean square, or of 1.
- **refused**: the import ends in one line.
- **wrong**: the import computes other logits. **crash**: it ends in another error.
- **unjudged**: the import works, but the class itself cannot run the config.

{summary}

"""

REASONS = """
## What is refused

The reasons of the refusals in the PyTorch twin, with numbers and values left out, and how often each was given.

"""


def table(verdicts: Sequence[Verdict]) -> str:
    """Returns the counts of each family and twin as a table in markdown."""
    rows = []
    for twin in dict.fromkeys(verdict.twin for verdict in verdicts):
        ours = [verdict for verdict in verdicts if verdict.twin == twin]
        for family in [name for name in FAMILIES if any(verdict.family == name for verdict in ours)]:
            rows.append(_row(family, twin, [verdict for verdict in ours if verdict.family == family]))
        rows.append(_row("all", twin, ours))
    return markdown_table(["family", "twin", "variants", *OUTCOMES], rows)


def _row(family: str, twin: str, verdicts: Sequence[Verdict]) -> list[str]:
    counted = counts(verdicts)
    return [family, twin, str(len(verdicts)), *(str(counted[outcome]) for outcome in OUTCOMES)]


def page(verdicts: Sequence[Verdict], command: str) -> str:
    """Writes the text of the page."""
    from parity.oracle.imports_judge import TOLERANCE

    counted = counts(verdicts)
    run = Counter(verdict.twin for verdict in verdicts)
    summary = (
        f"{run['torch']} variants of {len(FAMILIES)} families in PyTorch, and {run['flax']} of them in Flax:"
        f" {counted['wrong']} wrong, {counted['crash']} crash."
    )
    text = INTRODUCTION.format(command=command, summary=summary, tolerance=TOLERANCE) + table(verdicts) + "\n"
    return text + REASONS + markdown_table(["reason", "times"], _reasons(verdicts)) + "\n"


def _reasons(verdicts: Sequence[Verdict]) -> list[list[str]]:
    first = verdicts[0].twin if verdicts else ""
    refusals = [each.detail for each in verdicts if each.outcome == REFUSED and each.twin == first]
    return [[reason, str(times)] for reason, times in Counter(map(_reason, refusals)).most_common(40)]


def _reason(detail: str) -> str:
    """Returns an error without its values, so that equal reasons can be counted."""
    text = re.sub(r"=[^=]*? of a ", "=... of a ", detail)
    text = re.sub(r"of a \S+( attn_config)? model", "of a model", text)
    text = re.sub(r"\[[\d, ]+\]|\d+(\.\d+)?(e-?\d+)?", "N", text)
    return text.replace("|", "\\|")
