"""The ladder over every cell: the quick ones by default, all others with -m slow."""

import pytest

from parity.cells import cells
from parity.ladder import climb

TASKS = [
    pytest.param(cell, name, id=f"{cell.name}-{name}", marks=[] if name in cell.quick else [pytest.mark.slow])
    for cell in cells()
    for name in cell.precisions
]


@pytest.mark.parametrize(("cell", "precision"), TASKS)
def test_the_twins_are_equal(cell, precision):
    results = list(climb(cell, precision))
    assert results
    assert not [str(result) for result in results if not result.passed]
