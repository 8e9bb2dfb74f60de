"""Counts the faults that the suite caught and that the bisector named: a pytest plugin.

A test of a fault records the property "mutation": {place, section, about, fault, check, module, proof}. The proof is
"caught" (by the suite) or "named" (by the bisector). The test of the generated mutants records the property
"generated": {made, total, caught, left}. Both work across the processes of pytest-xdist.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROOFS = ("caught", "named")
COMMAND = "uv run pytest tests/parity/test_mutations.py -m slow --mutation-page docs/mutations.md"
"""Writes the page of the planted faults. With `-m 'slow or exhaustive'` it also makes the generated mutants."""


@dataclass
class Score:
    """The outcome of one fault.

    Args:
      place: position in the table of faults.
      section, about, fault, check, module: as the test records them.
      passed: {proof: whether its test passed}, for the proofs that ran.
    """

    place: int
    section: str
    about: str
    fault: str
    check: str
    module: str
    passed: dict[str, bool] = field(default_factory=dict)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mutation-page", metavar="FILE", help="write the mutation score to a Markdown page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = finished(terminalreporter)
    scores, generated = collect(reports), properties(reports, "generated")
    if not scores and not generated:
        return
    terminalreporter.section("mutation score (caught / named / total)")
    for name, members in [*by(scores, "section").items(), ("sum", scores)]:
        terminalreporter.line(f"{name.ljust(12)}{' / '.join(str(number).rjust(3) for number in totals(members))}")
    for score in scores:
        for proof, passed in score.passed.items():
            if not passed:
                terminalreporter.line(f"not {proof}: {score.fault} ({score.about})")
    for told in generated:
        terminalreporter.line(f"generated   {told['caught']} caught of {told['total']}")
        for name, why in told["left"].items():
            terminalreporter.line(f"  left: {name}" + (f" ({why})" if why else ""))
    page = config.getoption("--mutation-page")
    if page:
        Path(page).write_text(markdown(scores, generated), encoding="utf-8")


def collect(reports: Iterable[pytest.TestReport]) -> list[Score]:
    """Returns the score of each fault in the reports, in the order of the table of faults."""
    scores: dict[str, Score] = {}
    for report in reports:
        for value in properties([report], "mutation"):
            told = {key: value[key] for key in value if key != "proof"}
            scores.setdefault(value["fault"], Score(**told)).passed[value["proof"]] = report.passed
    return sorted(scores.values(), key=lambda score: score.place)


def finished(terminalreporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """Returns the reports of the tests that passed or failed."""
    return [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ())]


def properties(reports: Iterable[pytest.TestReport], name: str) -> list[dict]:
    """Returns the properties of this name that tests recorded."""
    return [value for report in reports for key, value in report.user_properties if key == name]


def by(scores: list[Score], key: str) -> dict[str, list[Score]]:
    """Returns the scores of each section or component."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(getattr(score, key), []).append(score)
    return groups


def totals(scores: list[Score]) -> tuple[int, int, int]:
    """Returns how many faults were caught, how many named, and how many there are."""
    caught, named = (sum(score.passed.get(proof, False) for score in scores) for proof in PROOFS)
    return caught, named, len(scores)


def markdown(scores: list[Score], generated: list[dict]) -> str:
    """Returns the page: a table of sections, then one of the faults of each component, then the generated mutants."""
    caught, named, total = totals(scores)
    command = COMMAND.replace("slow", "'slow or exhaustive'") if generated else COMMAND
    lines = [
        "# The mutation score",
        "",
        "A proof that cannot fail proves nothing. Each line below is a fault: one mistake that a porter could make,",
        "in one twin alone. The faults of `stacks` are in the Flax twin, all others in the PyTorch twin. A fault is",
        "*caught* if the suite fails, and fails first in the check of that line. It is *named* if the bisector names",
        "the module of that line. The faults are in `tests/parity/faults/`. A test demands a fault for each component,",
        "for each option that computes, and for each rule of [numerics.md](numerics.md).",
        "",
        f"**{caught} of {total} caught, {named} of {total} named.** Written by `{command}`.",
        "",
        "| section | caught | named | total |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {' | '.join(map(str, totals(members)))} |" for name, members in by(scores, "section").items()),
        f"| **sum** | **{caught}** | **{named}** | **{total}** |",
    ]
    for section, members in by(scores, "section").items():
        lines += ["", f"## {section}", "", "| about | what is wrong | check | module | caught | named |"]
        lines += ["|---|---|---|---|:---:|:---:|"]
        for about, faults in sorted(by(members, "about").items()):
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
            "A rule makes these mutants, not a person. It changes one operator, comparison, number, flag or condition",
            "at a time, in `layers/`, `optim/`, `quantization/`, `params.py`, `remat.py`, `loss.py`, `model.py`,",
            "`trainer.py` and `generate.py` of the PyTorch twin. A mutant is run if building, training or decoding the",
            "small models calls its function. It is caught if the suite fails, or if the twin itself raises an error.",
            "",
            f"{told['made']} mutants made, {told['total']} run.",
            f"**{told['caught']} of {told['total']} caught.** No test can tell the others from the original:",
            "",
            "| mutant | why |",
            "|---|---|",
            *(f"| `{name}` | {why} |" for name, why in told["left"].items()),
        ]
    return "\n".join(lines) + "\n"


def _mark(score: Score, proof: str) -> str:
    return {True: "yes", False: "**no**", None: ""}[score.passed.get(proof)]
