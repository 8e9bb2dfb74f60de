"""The PyTorch engine: accumulation, recomputation, clipping, scaling, checkpoints."""

import engine_checks as checks
import pytest
import torch

from slm_core.params import Spec
from slm_torch.optim import AdamW, clip_factor
from slm_torch.scaler import LossScaler
from slm_torch.trainer import build


@pytest.mark.parametrize("name", checks.SAME_FUNCTION)
def test_the_same_function(name):
    checks.check_equal_updates(build, *checks.SAME_FUNCTION[name])


@pytest.mark.parametrize(
    "check",
    [
        checks.check_evaluation_ignores,
        checks.check_clipping,
        checks.check_overflow_is_skipped,
        checks.check_non_finite_is_skipped,
        checks.check_import_errors,
        checks.check_automatic_precision,
        checks.check_half_decodes,
    ],
)
def test_engine(check):
    check(build)


@pytest.mark.parametrize("check", [checks.check_state_comes_back, checks.check_damaged_checkpoints])
def test_checkpoints(check, tmp_path):
    check(build, tmp_path / "folder")


@pytest.mark.parametrize(("precision", "finite", "scales"), checks.scaler_cases())
def test_scaler(precision, finite, scales):
    scaler, found = LossScaler(precision, active=True), []
    for ok in finite:
        scaler.update(ok)
        found.append(scaler.scale)
    assert found == scales


def test_adamw():
    def run(optim, roles, params, grads, rates):
        tensors = {}
        for name, value in params.items():
            tensors[name] = torch.nn.Parameter(torch.from_numpy(value.copy()))
            tensors[name].spec = Spec(roles[name])
        optimizer = AdamW(optim, tensors)
        for grad, lr in zip(grads, rates, strict=True):
            for name, tensor in tensors.items():
                tensor.grad = torch.from_numpy(grad[name].copy())
            optimizer.update(lr)
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}

    checks.check_adamw(run)


def test_clip_factor():
    assert clip_factor(4.0, 1.0) == 0.25 and clip_factor(0.5, 1.0) == 1.0 and clip_factor(4.0, 0.0) == 1.0
