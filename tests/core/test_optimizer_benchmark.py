"""The comparison of optimizers on curves that are known."""

import pytest

from slm_core.optimizer_benchmark import Curve, draw, table


def curves(updates: int) -> list[Curve]:
    first = [5.0 - step / 100 for step in range(updates)]
    return [Curve("adamw", first, 8_000, 1_000), Curve("adamw8bit", [loss + 0.25 for loss in first], 2_040, 1_000)]


@pytest.mark.parametrize(("updates", "last"), [(1, 5.0), (100, 4.055), (600, -0.745)])  # means of 1, 10 and 50
def test_table(updates, last):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(curves(updates)).splitlines()[2:]]
    assert rows[0] == ["adamw", f"{last:.4f}", "", "8,000", "8.00"]
    assert rows[1] == ["adamw8bit", f"{last + 0.25:.4f}", "0.2500", "2,040", "2.04"]


def test_picture(tmp_path):
    draw(curves(30), "both", tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").stat().st_size > 1000
