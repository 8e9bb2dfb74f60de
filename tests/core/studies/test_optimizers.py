"""The comparison of optimizers on loss curves that are known."""

import dataclasses

import pytest

from slm_core.config import Config, Data, Finetune, Optim
from slm_core.errors import UserError
from slm_core.studies.optimizers import LossCurve, draw, table, with_optimizer

CONFIG = Config(data=Data(source="text", path="some.txt"))


def loss_curves(updates: int) -> list[LossCurve]:
    first = [5.0 - step / 100 for step in range(updates)]
    return [
        LossCurve("adamw", first, 8_000, 1_000),
        LossCurve("adamw8bit", [loss + 0.25 for loss in first], 2_040, 1_000),
    ]


@pytest.mark.parametrize(("updates", "last"), [(1, 5.0), (100, 4.055), (600, -0.745)])  # means of 1, 10 and 50
def test_table(updates, last):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(loss_curves(updates)).splitlines()[2:]]
    assert rows[0] == ["adamw", f"{last:.4f}", "", "8,000", "8.00"]
    assert rows[1] == ["adamw8bit", f"{last + 0.25:.4f}", "0.2500", "2,040", "2.04"]


def test_picture(tmp_path):
    draw(loss_curves(30), "both", tmp_path / "losses.png")
    assert (tmp_path / "losses.png").stat().st_size > 1000


def test_what_the_other_optimizer_does_not_read_is_left_at_its_default():
    config = dataclasses.replace(CONFIG, optim=Optim(kind="adamw", eps=1e-6))
    same, notes = with_optimizer(config, "adamw8bit", 500)
    assert (same.optim.kind, same.optim.eps, same.train.steps, notes) == ("adamw8bit", 1e-6, 500, [])
    other, notes = with_optimizer(config, "lion", 500)
    assert other.optim == Optim(kind="lion")
    assert len(notes) == 1 and notes[0].startswith("optim.eps=1e-06 ")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CONFIG, "optim.warmup_steps=10 must be less than train.steps=10"),
        (dataclasses.replace(CONFIG, finetune=Finetune(base="models/a")), "finetune.base=models/a: .* unset it"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused(config, words):
    with pytest.raises(UserError, match=words):
        with_optimizer(dataclasses.replace(config, optim=Optim(warmup_steps=10)), "adamw8bit", 10)
