"""The ladder over every cell: the quick ones by default, all of them with -m slow."""

import pytest

from parity.cells import cells
from parity.ladder import climb

TASKS = [
    pytest.param(cell, precision, id=f"{cell.name}-{precision}", marks=[pytest.mark.slow] if cell.slow else [])
    for cell in cells()
    for precision in cell.precisions
]


@pytest.mark.parametrize(("cell", "precision"), TASKS)
def test_the_twins_are_equal(cell, precision):
    results = list(climb(cell, precision))
    assert results
    assert not [str(result) for result in results if not result.passed]
