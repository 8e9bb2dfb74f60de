"""Writes the tables of docs/resuming.md: what `parity.resumes` measured. The text above them is written by hand."""

from collections.abc import Sequence

from parity.resumes import HANDED_OVER, STATE_TOLERANCE, Move, Resume
from parity.tolerances import TOLERANCES
from slm_core.planner.report import TWINS

HEADING = "## Measured"
"""The tables replace everything from this line on."""

_INTRODUCTION = """{heading}

Written by `{command}`, not by hand. {summary}

### In one precision
{updates} updates in one twin, then {updates} in the other, against {both} in the first alone. The state goes
through the files of a checkpoint. An entry is what is apart after that, for PyTorch to Flax · Flax to PyTorch:

- **losses**: the largest difference of a loss after the resume, in nats per token. The tolerance is that of the proof:
  {losses}.
- **state**: the largest relative error of an entry of the state (parameter, moment, scale). The tolerance is {state}.
- **there and back**: resumes whose state came to the other twin and back without an update, with every bit the same.

In float16 the loss scale overflows at first, has fallen, and waits to grow when the other twin takes over. Both twins
then skip the same updates at the same scales; else the entry would be infinite.

"""

_DTYPES = """
### In another dtype
{updates} updates in one twin and dtype, then the loss of a batch in the other twin and another dtype. The deviation is
relative to the loss before. The trainer says the expected deviation before it goes on, and checks it after.

"""


def with_tables(text: str, results: Sequence[Resume | Move], command: str) -> str:
    """Returns the page with new tables."""
    from parity.report import machine
    from slm_core.runs.provenance import versions
    from slm_core.studies.tables import markdown_table

    resumes = [result for result in results if isinstance(result, Resume)]
    moves = [result for result in results if isinstance(result, Move)]
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    introduction = _INTRODUCTION.format(
        heading=HEADING, command=command, summary=summary(resumes, moves), updates=HANDED_OVER, both=2 * HANDED_OVER,
        losses=_listed({name: TOLERANCES[name]["resume"] for name in STATE_TOLERANCE}), state=_listed(STATE_TOLERANCE),
    )  # fmt: skip
    head = ["case", "precision", "losses", "state", "there and back"]
    text = text.partition(HEADING)[0] + introduction + markdown_table(head, _rows(resumes)) + "\n"
    text += _DTYPES.format(updates=HANDED_OVER)
    head = ["stops in", "goes on in", "deviation", "expected at most"]
    rows = [[_twin(m.source), _twin(m.target), f"{m.deviation:.1e}", f"{m.expected:.0e}"] for m in moves]
    return text + markdown_table(head, rows) + f"\n\n{software}. {machine()}.\n"


def summary(resumes: Sequence[Resume], moves: Sequence[Move]) -> str:
    """Says in two sentences what was measured, and how far apart it was."""
    cases = {(r.case, r.precision == "float16") for r in resumes}
    passed = all(result.passed for result in (*resumes, *moves))
    verdict = "all within their tolerances" if passed else "NOT all within their tolerances"
    worst = {p: max(r.losses for r in resumes if r.precision == p) for p in STATE_TOLERANCE}
    states = {p: max(r.state for r in resumes if r.precision == p) for p in STATE_TOLERANCE}
    return (
        f"{len(resumes)} resumes of {len(cases)} cases and {len(moves)} in another dtype, {verdict}.\n"
        f"There and back, {sum(r.same_bits for r in resumes)} of {len(resumes)} states have every bit the same. The"
        f" losses are at most apart by {_listed(worst)}; the states by {_listed(states)}."
    )


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.1e} in {name}" for name, value in values.items())


def _rows(resumes: Sequence[Resume]) -> list[list[str]]:
    both = dict.fromkeys((r.case, r.precision) for r in resumes)
    table = []
    for case, precision in both:
        pair = [r for r in resumes if (r.case, r.precision) == (case, precision)]
        table.append(
            [
                case,
                precision,
                " · ".join(f"{r.losses:.1e}" for r in pair),
                " · ".join(f"{r.state:.1e}" for r in pair),
                f"{sum(r.same_bits for r in pair)} of {len(pair)}",
            ]
        )
    return table


def _twin(text: str) -> str:
    twin, _, dtype = text.partition(" ")
    return f"{TWINS[twin]}, {dtype}"
