"""The PyTorch engine: accumulation, recomputation, clipping, scaling, checkpoints."""

import engine_checks as checks
import pytest

from slm_torch.evaluator import Evaluator
from slm_torch.trainer import LossScaler, build


@pytest.mark.parametrize("name", checks.SAME_FUNCTION)
def test_the_same_function(name):
    checks.check_equal_updates(build, *checks.SAME_FUNCTION[name])


@pytest.mark.parametrize("check", checks.CHECKS)
def test_engine(check):
    check(build)


@pytest.mark.parametrize("check", checks.FOLDER_CHECKS)
def test_checkpoints(check, tmp_path):
    check(build, tmp_path / "folder")


@pytest.mark.parametrize("name", checks.EVALUATED)
def test_evaluator(name):
    checks.check_evaluator(build, Evaluator, checks.EVALUATED[name])


def test_evaluator_errors():
    checks.check_evaluator_errors(Evaluator)


@pytest.mark.parametrize(("precision", "finite", "scales"), checks.scaler_cases())
def test_scaler(precision, finite, scales):
    scaler, found = LossScaler(precision, active=True), []
    for ok in finite:
        scaler.update(ok)
        found.append(scaler.scale)
    assert found == scales
