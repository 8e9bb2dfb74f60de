"""Runs the suite over every case: the quick cases by default, all others with -m slow."""

import pytest

from parity.cases import cases
from parity.suite import run_case

TASKS = [
    pytest.param(case, name, id=f"{case.name}-{name}", marks=[] if name in case.quick else [pytest.mark.slow])
    for case in cases()
    for name in case.precisions
]


@pytest.mark.parametrize(("case", "precision"), TASKS)
def test_the_twins_are_equal(case, precision):
    results = list(run_case(case, precision))
    assert results
    assert not [str(result) for result in results if not result.passed]
