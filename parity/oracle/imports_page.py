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

The kinds of refusals in the PyTorch twin, how often there was one, and the shortest of each.

"""

KINDS = {
    "a field that no list of the family has": "is not known of",
    "a value of another type, or a null without a meaning": "is not (a|an|true) (or|whole|number|text|list|object)",
    "a number that is too small": "is less than|is not above 0",
    "two names of one field, with different values": "are one field",
    "tensors and config.json that contradict each other": "calls for|does not fit|is not part of|differs from",
    "a list of another length than the layers": "names \\d+ of",
    "special tokens that are no ids": "is not the id of a token",
    "widths and counts that do not fit each other": "does not divide|^model\\.|^layer",
    "a value that the twins, or the class, do not have": "cannot be expressed|is not read by|not of a type|text_config",
}
"""{kind of refusal: what its error matches}"""


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
    return text + REASONS + markdown_table(["kind", "times", "for example"], _reasons(verdicts)) + "\n"


def _reasons(verdicts: Sequence[Verdict]) -> list[list[str]]:
    first = verdicts[0].twin if verdicts else ""
    refusals = [each.detail for each in verdicts if each.outcome == REFUSED and each.twin == first]
    examples: dict[str, list[str]] = {}
    for detail in refusals:
        examples.setdefault(_reason(detail), []).append(detail)
    ordered = sorted(examples.items(), key=lambda item: -len(item[1]))
    return [[reason, str(len(details)), min(details, key=len).replace("|", "\\|")] for reason, details in ordered]


def _reason(detail: str) -> str:
    """Returns the kind of an error."""
    return next((name for name, words in KINDS.items() if re.search(words, detail)), "another reason")
