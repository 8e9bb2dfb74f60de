"""A pytest plugin: of the faults that a run put into a twin, how many were caught and how many named.

A test about a fault records the property "mutation": {place, section, about, fault, check, module, proof}, with the
proof "caught" (by the suite) or "named" (by the bisector). It works across the processes of pytest-xdist.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROOFS = ("caught", "named")
COMMAND = "uv run pytest tests/parity/test_mutations.py -m 'not gpu' --mutation-page docs/mutations.md"


@dataclass
class Score:
    """What became of one fault.

    Args:
      place: in the table of faults.
      section, about, fault, check, module: as the test records them.
      held: whether each proof held, of those that ran.
    """

    place: int
    section: str
    about: str
    fault: str
    check: str
    module: str
    held: dict[str, bool] = field(default_factory=dict)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutation-page", metavar="FILE", help="write the mutation score to a Markdown page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ())]
    scores, generated = collect(reports), properties(reports, "generated")
    if not scores and not generated:
        return
    terminalreporter.section("mutation score (caught / named / total)")
    for name, own in [*by(scores, "section").items(), ("sum", scores)]:
        terminalreporter.line(f"{name.ljust(12)}{' / '.join(str(number).rjust(3) for number in totals(own))}")
    for score in scores:
        for proof, held in score.held.items():
            if not held:
                terminalreporter.line(f"not {proof}: {score.fault} ({score.about})")
    for told in generated:
        terminalreporter.line(f"generated   {told['caught']} caught of {told['total']}")
        for name, why in told["left"].items():
            terminalreporter.line(f"  left: {name}" + (f" ({why})" if why else ""))
    page = config.getoption("--mutation-page")
    if page:
        Path(page).write_text(markdown(scores, generated), encoding="utf-8")


def collect(reports: Iterable[pytest.TestReport]) -> list[Score]:
    """Returns the score of each fault that the reports tell of."""
    scores: dict[str, Score] = {}
    for report in reports:
        for value in properties([report], "mutation"):
            told = {key: value[key] for key in value if key != "proof"}
            scores.setdefault(value["fault"], Score(**told)).held[value["proof"]] = report.passed
    return sorted(scores.values(), key=lambda score: score.place)


def properties(reports: Iterable[pytest.TestReport], name: str) -> list[dict]:
    """Returns what tests recorded under a name."""
    return [value for report in reports for key, value in report.user_properties if key == name]


def by(scores: list[Score], key: str) -> dict[str, list[Score]]:
    """Returns the scores of each section or component."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(getattr(score, key), []).append(score)
    return groups


def totals(scores: list[Score]) -> tuple[int, int, int]:
    """Returns how many faults were caught, how many named, and how many there are."""
    caught, named = (sum(score.held.get(proof, False) for score in scores) for proof in PROOFS)
    return caught, named, len(scores)


def markdown(scores: list[Score], generated: list[dict]) -> str:
    """Returns the page: a table of sections, then one of the faults of each component, then the generated mutants."""
    caught, named, total = totals(scores)
    lines = [
        "# The mutation score",
        "",
        "A proof that cannot fail proves nothing. Each line below is one mistake of the kind that a porter makes, put",
        "into the PyTorch twin alone, those of stacks into the Flax twin alone. It is *caught* if the suite fails,",
        "and first in the check that is given; it is *named* if the bisector says that module. The faults are in",
        "`tests/parity/faults/`; a test holds that every component, every option that computes and every rule of",
        "[numerics.md](numerics.md) has one.",
        "",
        f"**{caught} of {total} caught, {named} of {total} named.** Written by `{COMMAND}`.",
        "",
        "| section | caught | named | total |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {' | '.join(map(str, totals(own)))} |" for name, own in by(scores, "section").items()),
        f"| **sum** | **{caught}** | **{named}** | **{total}** |",
    ]
    for section, own in by(scores, "section").items():
        lines += ["", f"## {section}", "", "| about | what is wrong | check | module | caught | named |"]
        lines += ["|---|---|---|---|:---:|:---:|"]
        for about, faults in sorted(by(own, "about").items()):
            lines += [
                f"| {about} | {s.fault} | {s.check.replace('_', ' ')} | `{s.module}` |"
                f" {_mark(s, 'caught')} | {_mark(s, 'named')} |"
                for s in faults
            ]
    for told in generated:
        lines += [
            "",
            "## Generated mutants",
            "",
            "Made by rule, not by hand: each operator, comparison, number, flag and condition in the functions of",
            "`layers/`, `optim/`, `quantization/`, `params.py`, `remat.py`, `loss.py`, `model.py`,",
            "`trainer.py`, `scaler.py` and `generate.py` that building, training and decoding the small models calls;",
            "the suite must fail, or the twin itself.",
            "",
            f"**{told['caught']} of {told['total']} caught.** The others compute what no test can tell apart:",
            "",
            "| mutant | why |",
            "|---|---|",
            *(f"| `{name}` | {why} |" for name, why in told["left"].items()),
        ]
    return "\n".join(lines) + "\n"


def _mark(score: Score, proof: str) -> str:
    return {True: "yes", False: "**no**", None: ""}[score.held.get(proof)]
