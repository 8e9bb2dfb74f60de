"""The suite over every case, in three tiers.

By default a sample; with -m slow every small case in float64, among them one per component, and the half precisions;
with -m exhaustive float32, whose tolerance repeats what float64 proves, and large models, which take the same code at
another size.
"""

import pytest

from parity.cases import Case, cases
from parity.suite import run_case

SAMPLE = {
    "base", "adamw, options", "attention.kind=mla", "mlp.kind=moe", "optim.kind=muon", "kernel=flash",
    "float16, dot_product", "gpt2.py:tiny",
}  # fmt: skip


def tier(case: Case, precision: str) -> list[pytest.MarkDecorator]:
    if precision in case.quick:
        return [] if case.name in SAMPLE else [pytest.mark.slow]
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
