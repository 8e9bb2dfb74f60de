"""The suite: by default over a sample; with -m slow over every small case in float64 and the half precisions.

`check_parity.py --all` runs the rest: float32, whose tolerance repeats what float64 proves, and large models, which
take the same code at another size. docs/parity.md has its measurements.
"""

import pytest

from parity.cases import Case, cases
from parity.suite import run_case

SAMPLE = {"base", "mlp.kind=moe", "optim.kind=muon"}


def tier(case: Case, precision: str) -> list[pytest.MarkDecorator]:
    return [] if case.name in SAMPLE and precision in case.quick else [pytest.mark.slow]


TASKS = [
    pytest.param(case, name, id=f"{case.name}-{name}", marks=tier(case, name))
    for case in cases()
    for name in case.precisions
    if name in case.quick or not (case.large or name == "float32")
]


@pytest.mark.parametrize(("case", "precision"), TASKS)
def test_the_twins_are_equal(case, precision):
    results = list(run_case(case, precision))
    assert results
    assert not [str(result) for result in results if not result.passed]
