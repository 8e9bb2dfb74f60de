"""Counts the faults that the suite caught and that the bisector named: a pytest plugin.

A test of a fault records the property "mutation": {place, section, about, fault, check, module, proof}. The proof is
"caught" (by the suite) or "named" (by the bisector). A test of a mistake that no comparison of the twins shows records
"unseen": {place, kind, fault, files, test}. A test of generated mutants records "mutants": {where:
"slm_core.model.mup", made: number, left: [[mutant, why it changes nothing], ...]}. All work across the processes of
pytest-xdist. A part of the page that a run did not measure stays as it is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROOFS = ("caught", "named")
COMMAND = "uv run pytest tests/parity/test_mutations.py -m slow --mutation-page docs/mutations.md"
"""Writes the planted faults of the page."""
GENERATED = (
    "uv run pytest tests/core/test_mutants.py tests/parity/test_mutants.py -m exhaustive"
    " --mutation-page docs/mutations.md"
)
"""Writes the generated mutants of the page."""
OTHERS = "uv run pytest tests/parity/test_unseen.py -m exhaustive --mutation-page docs/mutations.md"
"""Writes the faults of the page that no comparison of the twins shows."""
UNSEEN, HEADING, PART = "## What no comparison of the twins shows\n", "## Generated mutants\n", "\n### "
PACKAGES = {"slm_core": "both twins share it", "slm_torch": "the PyTorch twin", "slm_flax": "the Flax twin"}


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
    scores, generated = collect(reports), properties(reports, "mutants")
    unseen = [value | {"caught": report.passed} for report in reports for value in properties([report], "unseen")]
    unseen.sort(key=lambda told: told["place"])
    if not scores and not unseen and not generated:
        return
    terminalreporter.section("mutation score (caught / named / total)")
    for name, members in [*by(scores, "section").items(), *([("sum", scores)] if scores else [])]:
        terminalreporter.line(f"{name.ljust(12)}{' / '.join(str(number).rjust(3) for number in totals(members))}")
    for score in scores:
        for proof, passed in score.passed.items():
            if not passed:
                terminalreporter.line(f"not {proof}: {score.fault} ({score.about})")
    if unseen:
        caught = sum(told["caught"] for told in unseen)
        terminalreporter.line(f"{caught} caught of {len(unseen)} that no comparison of the twins shows")
    for told in generated:
        terminalreporter.line(f"{told['where']}: {told['made'] - len(told['left'])} caught of {told['made']} mutants")
        for name, why in told["left"]:
            terminalreporter.line(f"  left: {name}" + (f" ({why})" if why else ""))
    page = config.getoption("--mutation-page")
    if page:
        path = Path(page)
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        path.write_text(markdown(scores, unseen, generated, before), encoding="utf-8")


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


def markdown(scores: list[Score], unseen: list[dict], generated: list[dict], before: str = "") -> str:
    """Returns the page: planted faults of both sorts, generated mutants. What was not measured is as in `before`."""
    above, _, mutants = before.partition(HEADING)
    planted, _, others = above.partition(UNSEEN)
    parts = {part.partition("\n")[0].strip("`"): part for part in mutants.split(PART)[1:]}
    for package in PACKAGES:
        measured = [told for told in generated if told["where"].partition(".")[0] == package]
        if measured:
            parts[package] = _mutants(package, sorted(measured, key=lambda told: told["where"]))
    planted = _planted(scores) if scores else planted.rstrip() + "\n"
    others = _unseen(unseen) if unseen else UNSEEN + others if others else ""
    planted = "\n".join([planted, *([others.rstrip() + "\n"] if others else [])])
    if not parts:
        return planted
    sums = [_sums(parts[package]) for package in PACKAGES if package in parts]
    made, caught = (sum(each) for each in zip(*sums, strict=True))
    return "\n".join([
        planted,
        HEADING,
        "A rule makes these mutants, not a person. It changes one operator, comparison, number, flag or condition at a",
        "time, in every file that computes. A mutant of a twin faces the proof of the small models, and then the tests",
        "of its file; a mutant of `slm_core` faces the tests alone. It is caught if one fails. Each one that is left",
        "has a reason why no test can tell it from the original.",
        "",
        f"**{caught:,} of {made:,} caught, the others explained.** Written by `{GENERATED}`.",
        *(PART + parts[package].strip("\n") for package in PACKAGES if package in parts),
    ]) + "\n"  # fmt: skip


def _unseen(faults: list[dict]) -> str:
    """Returns the part of the faults that no comparison of the twins shows: a table of each kind."""
    caught = sum(told["caught"] for told in faults)
    lines = [
        UNSEEN,
        "These faults are in both twins, in `slm_core`, or on paths that small models do not take. They are edits of a",
        "copy of the sources, in `tests/parity/faults/unseen.py`. One is caught if the test of its line fails.",
        "",
        f"**{caught} of {len(faults)} caught.** Written by `{OTHERS}`.",
    ]
    for kind in dict.fromkeys(told["kind"] for told in faults):
        lines += [
            "",
            f"**{kind[0].upper()}{kind[1:]}**",
            "",
            "| what is wrong | in | test | caught |",
            "|---|---|---|:---:|",
        ]
        for told in faults:
            if told["kind"] == kind:
                files = ", ".join(f"`{file}`" for file in told["files"])
                lines.append(
                    f"| {told['fault']} | {files} | `{told['test']}` | {'yes' if told['caught'] else '**no**'} |"
                )
    return "\n".join(lines) + "\n"


def _mutants(package: str, measured: list[dict]) -> str:
    """Returns the part of a package: a table of its files, then one of the mutants that are left."""
    counts = [(told["where"], told["made"], told["made"] - len(told["left"])) for told in measured]
    rows = [f"| `{where}` | {made} | {caught} | {made - caught} |" for where, made, caught in counts]
    made, caught = (sum(numbers) for numbers in list(zip(*counts, strict=True))[1:])
    lines = [f"`{package}`", "", f"{PACKAGES[package][0].upper()}{PACKAGES[package][1:]}.", ""]
    lines += ["| file | made | caught | left |", "|---|---:|---:|---:|", *rows]
    lines += [f"| **sum** | **{made}** | **{caught}** | **{made - caught}** |", "", "| mutant | why |", "|---|---|"]
    left = [(name.replace("|", "\\|"), why) for told in measured for name, why in told["left"]]
    return "\n".join([*lines, *(f"| `{name}` | {why or '**unexplained**'} |" for name, why in left)])


def _sums(part: str) -> tuple[int, int]:
    """Reads from a part how many mutants were made and caught."""
    made, caught = re.search(r"^\| \*\*sum\*\* \| \*\*(\d+)\*\* \| \*\*(\d+)\*\*", part, re.MULTILINE).groups()
    return int(made), int(caught)


def _planted(scores: list[Score]) -> str:
    """Returns the part of the planted faults: a table of sections, then one of the faults of each component."""
    caught, named, total = totals(scores)
    lines = [
        "# The mutation score",
        "",
        "A proof that cannot fail proves nothing. Each line of the first tables is a planted fault: one mistake that a",
        "porter could make, in one twin alone. The faults of `stacks` are in the Flax twin, all others in the PyTorch",
        "twin. A fault is *caught* if the suite fails, and fails first in the check of that line. It is *named* if the",
        "bisector names the module of that line. The faults are in `tests/parity/faults/`. A test demands a fault for",
        "each component, for each option that computes, and for each rule of [numerics.md](numerics.md). Faults that",
        "nobody chose are [generated](#generated-mutants), and others are [seen by no comparison of the",
        "twins](#what-no-comparison-of-the-twins-shows): their scores are told apart.",
        "",
        f"**{caught} of {total} caught, {named} of {total} named.** Written by `{COMMAND}`.",
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
    return "\n".join(lines) + "\n"


def _mark(score: Score, proof: str) -> str:
    return {True: "yes", False: "**no**", None: ""}[score.passed.get(proof)]
