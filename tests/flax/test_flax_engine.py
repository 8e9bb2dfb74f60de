"""The Flax engine: accumulation, recomputation, clipping, scaling, checkpoints."""

import engine_checks as checks
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slm_core.params import Spec, decays
from slm_flax.optim import AdamW, clip_factor
from slm_flax.scaler import LossScaler
from slm_flax.trainer import build


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
    state = scaler.init()
    for ok in finite:
        state = scaler.update(state, jnp.asarray(ok))
        found.append(float(state["scale"]))
    assert found == scales


def run_adamw(optim, roles, params, grads, rates):
    jax.config.update("jax_enable_x64", True)
    optimizer = AdamW(optim, {name: Spec(role) for name, role in roles.items()})
    params = {name: jnp.asarray(value) for name, value in params.items()}
    state = optimizer.init(params)
    for grad, lr in zip(grads, rates, strict=True):
        grad = {name: jnp.asarray(value) for name, value in grad.items()}
        params, state = optimizer.update(grad, state, params, jnp.asarray(lr))
    return {name: np.asarray(value) for name, value in params.items()}


def test_adamw():
    checks.check_adamw(run_adamw)


def test_adamw_is_optax_s():
    optim, roles, start, grads, rates = checks.adamw_case()
    found = run_adamw(optim, roles, start, grads, rates)
    params = {name: jnp.asarray(value) for name, value in start.items()}
    mask = {name: decays(Spec(role), optim) for name, role in roles.items()}
    transform = optax.inject_hyperparams(optax.adamw, static_args="mask")(
        0.0, *optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, mask=mask
    )
    state = transform.init(params)
    for grad, lr in zip(grads, rates, strict=True):
        state.hyperparams["learning_rate"] = jnp.asarray(lr)
        updates, state = transform.update({name: jnp.asarray(g) for name, g in grad.items()}, state, params)
        params = optax.apply_updates(params, updates)
    for name in params:
        np.testing.assert_allclose(found[name], params[name], rtol=1e-12, atol=1e-14)


def test_clip_factor():
    jax.config.update("jax_enable_x64", True)
    norm = jnp.asarray([4.0, 0.5])
    assert clip_factor(norm[0], 1.0) == 0.25 and clip_factor(norm[1], 1.0) == 1 and clip_factor(norm[0], 0.0) == 1
