"""The suite over every case, in three tiers.

By default the quick cases, which prove every component; with -m slow every small case in float64, and the half
precisions; with -m exhaustive float32, whose tolerance repeats what float64 proves, and large models, which take the
same code at another size.
"""

import pytest

from parity.cases import Case, cases
from parity.suite import run_case


def tier(case: Case, precision: str) -> list[pytest.MarkDecorator]:
    if precision in case.quick:
        return []
    return [pytest.mark.exhaustive if case.large or precision == "float32" else pytest.mark.slow]


TASKS = [
    pytest.param(case, name, id=f"{case.name}-{name}", marks=tier(case, name))
    for case in cases()
    for name in case.precisions
]


@pytest.mark.parametrize(("case", "precision"), TASKS)
def test_the_twins_are_equal(case, precision):
    results = list(run_case(case, precision))
    assert results
    assert not [str(result) for result in results if not result.passed]
