"""The page of reproducibility: what counts as the same, and what must be."""

import sys

import pytest

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.studies.reproducibility import BASE, VARIATIONS, Row, compare, failures, table
from slm_core.studies.runner import train_once


def lines(losses, validation):
    return [{"split": "train", "loss": loss} for loss in losses] + [{"split": "eval", "loss": x} for x in validation]


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda variation: variation.name)
def test_every_variation_is_a_valid_run(variation):
    validate(with_values(Config(), BASE | dict(variation.settings)), {**BASE, **variation.settings})


def test_equal_updates_are_counted_up_to_the_first_that_differs():
    base = lines([4.0, 3.0, 2.0, 1.0], [3.5, 2.5])
    assert compare(base, lines([4.0, 3.0, 2.0, 1.0], [2.5])) == (4, 0.0, 0.0)
    assert compare(base, lines([4.0, 3.0, 2.5, 1.0], [3.5, 2.25])) == (2, 0.0, 0.25)
    assert compare(base, lines([4.5, 3.0, 2.0, 1.0], [2.5])) == (0, 0.5, 0.0)


def test_what_must_be_the_same_and_is_not_is_a_failure():
    same, near = VARIATIONS[0], VARIATIONS[-1]
    assert same.bitwise and not near.bitwise
    rows = [Row(same, "torch", 100, 0.0, 0.0), Row(near, "torch", 3, 0.0, 0.1), Row(same, "flax", 7, 0.0, 0.0)]
    assert failures(rows) == ["flax: the same command again: the loss of update 8 differs"]
    assert failures([Row(same, "flax", 100, 0.0, 1e-9)])
    shown = table(rows).splitlines()
    assert [line.split("|")[2].strip() for line in shown[2:]] == ["PyTorch", "Flax", "PyTorch"]
    assert "3 of 100" in shown[4] and "1.0e-01" in shown[4] and "equal" in shown[2]


def test_a_run_that_fails_is_named_with_the_last_line_of_its_message():
    failing = [sys.executable, "-c", "import sys; sys.exit('a traceback\\nerror: no such text')"]
    with pytest.raises(UserError, match=r"^models/one: the run failed: error: no such text$"):
        train_once(failing, {"run.dir": "models", "run.name": "one"})
