"""The suite: by default over a sample; with -m slow over every component, choice and field.

`check_parity.py --all` runs the rest: more combinations, float32, whose tolerance repeats what float64 proves, and
large models, which take the same code at another size. docs/parity.md has its measurements.
"""

import pytest

from parity.cases import Case, cases, proven
from parity.suite import run_case

SAMPLE = {"base", "mlp.kind=moe", "optim.kind=muon"}


def needed(entries: list[Case]) -> list[Case]:
    """Returns the quick cases, and as few others as have every component, choice and field that the rest have."""

    def shown(case: Case) -> set[str]:
        return {*case.about, *proven(case)}

    kept = [case for case in entries if case.quick]
    seen: set[str] = set().union(*map(shown, kept))
    while missing := [case for case in entries if shown(case) - seen]:
        kept.append(max(missing, key=lambda case: len(shown(case) - seen)))
        seen |= shown(kept[-1])
    return kept


def tier(case: Case, precision: str) -> list[pytest.MarkDecorator]:
    return [] if case.name in SAMPLE and precision in case.quick else [pytest.mark.slow]


TASKS = [
    pytest.param(case, name, id=f"{case.name}-{name}", marks=tier(case, name))
    for case in needed([case for case in cases() if not case.large])
    for name in case.precisions
    if name in case.quick or name != "float32"
]


@pytest.mark.parametrize(("case", "precision"), TASKS)
def test_the_twins_are_equal(case, precision):
    results = list(run_case(case, precision))
    assert results
    assert not [str(result) for result in results if not result.passed]
