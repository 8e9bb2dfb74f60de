"""The Flax optimizers against the papers' formulas and optax, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optim_checks as checks
import oracles_optim
import pytest

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_flax.optim import AVERAGED, OPTIMIZERS, make
from slm_flax.optim.clipping import clip_factor
from slm_flax.optim.muon import orthogonal as orthogonal_by_muon
from slm_flax.trainer import build


@pytest.fixture(autouse=True)
def wide():
    jax.config.update("jax_enable_x64", True)


def arrays(values):
    return {name: jnp.asarray(value) for name, value in values.items()}


def run(optim, groups, values, grads, rates):
    optimizer, params = make(optim, groups), arrays(values)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for grad, lr in zip(grads, rates, strict=True):
        dtype = next(iter(params.values())).dtype
        params, state = update(arrays(grad), state, params, jnp.asarray(lr, dtype))
    params = AVERAGED[optim.kind](optim, params, state) if optim.kind in AVERAGED else params
    return {name: np.asarray(value) for name, value in params.items()}


@pytest.mark.parametrize("name", checks.CASES)
@pytest.mark.parametrize("check", [checks.check_formula, checks.check_zero_gradients])
def test_update(check, name):
    check(run, name)


def test_slices(monkeypatch):
    checks.check_slices(run, monkeypatch, "slm_flax.optim.adamw8bit")


def orthogonal(optim, u):
    return np.asarray(orthogonal_by_muon(jnp.asarray(u), optim.newton_schulz_steps))


def test_orthogonal():
    checks.check_orthogonal(orthogonal)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8)])
def test_orthogonal_is_optax_s(shape):
    from optax.contrib._muon import orthogonalize_via_newton_schulz

    u = np.random.default_rng(0).standard_normal(shape)
    theirs = orthogonalize_via_newton_schulz(jnp.asarray(u), jnp.asarray([3.4445, -4.7750, 2.0315]), eps=1e-7)
    np.testing.assert_allclose(orthogonal(Optim(kind="muon"), u), theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_state(kind):
    checks.check_state(build, kind)


@pytest.mark.slow
def test_8_bits_train_alike():
    checks.check_8_bits_train_alike(build)


def test_averages():
    checks.check_averages(build)


def test_balance(monkeypatch):
    checks.check_balance(build, monkeypatch, "slm_flax.layers.linear")


def test_clip_factor():
    norm = jnp.asarray([4.0, 0.5])
    assert clip_factor(norm[0], 1.0) == 0.25 and clip_factor(norm[1], 1.0) == 1 and clip_factor(norm[0], 0.0) == 1


def free(rates):
    """optax counts the wrapper's steps from 1 and the inner optimizer's from 0."""
    inner = optax.adamw(lambda step: jnp.asarray(rates)[step], b1=0.0, b2=0.99, eps=1e-3, weight_decay=0.3)
    return optax.contrib.schedule_free(inner, lambda step: jnp.asarray(rates)[step - 1], b1=0.8)


RISING = [1e-3, 5e-3, 1e-2, 2e-2, 2e-2]  # optax's schedule_free weighs by the largest rate so far
LIBRARY = {
    "adamw": (
        Optim(betas=(0.8, 0.99), eps=1e-3),
        lambda rates: optax.adamw(lambda step: jnp.asarray(rates)[step], 0.8, 0.99, 1e-3, weight_decay=0.3),
        0.3,
    ),
    "sgd": (
        Optim(kind="sgd", momentum=0.8),
        lambda rates: optax.sgd(lambda step: jnp.asarray(rates)[step], 0.8, nesterov=True),
        0.0,
    ),
    "lion": (
        Optim(kind="lion", betas=(0.7, 0.95)),
        lambda rates: optax.lion(lambda step: jnp.asarray(rates)[step], 0.7, 0.95, weight_decay=0.3),
        0.3,
    ),
    "adafactor": (
        Optim(kind="adafactor"),
        lambda rates: optax.adafactor(lambda step: jnp.asarray(rates)[step], min_dim_size_to_factor=1),
        0.0,
    ),
    "schedule_free": (Optim(kind="schedule_free", betas=(0.8, 0.99), eps=1e-3), free, 0.3),
}
"""{kind: (ours, optax's from the learning rates, weight decay)} where both are the same function."""


@pytest.mark.parametrize("kind", LIBRARY)
def test_it_is_optax_s(kind):
    optim, library, decay = LIBRARY[kind]
    values, grads = checks.case()
    values.pop("experts")  # optax's adafactor picks the two longest sides
    grads = [{name: g[name] for name in values} for g in grads]
    groups = {name: ParameterGroup("matrix", decay=decay) for name in values}
    found = run(optim, groups, values, grads, RISING)
    transform, params = library(RISING), arrays(values)
    state = transform.init(params)
    for grad in grads:
        moves, state = transform.update(arrays(grad), state, params)
        params = optax.apply_updates(params, moves)
    if kind == "schedule_free":
        params = optax.contrib.schedule_free_eval_params(state, params)
    for name, p in params.items():
        tolerance = 1e-7 if kind == "adafactor" else 1e-11  # optax takes its decay in float32
        np.testing.assert_allclose(found[name], p, rtol=tolerance, atol=tolerance / 100, err_msg=name)


class Measured(NamedTuple):
    """A specification beside optax's own transformation.

    Args:
      direction: from the config's section: what is multiplied by the learning rate; None: optax has none.
      equal: whether it is the specification in float64.
      because: why not.
    """

    optim: Optim
    direction: Callable[[Optim], optax.GradientTransformation] | None
    equal: bool
    because: str = ""


def library_muon(optim):
    """optax's iteration, times the scale of a shape: optax does not export its own."""
    sides = lambda params: {name: optax.contrib.MuonDimensionNumbers() for name in params}  # noqa: E731
    muon = optax.contrib.scale_by_muon(
        beta=optim.momentum, eps=1e-7, nesterov=optim.nesterov, weight_dimension_numbers=sides
    )
    scale = optax.stateless(lambda steps, _: {name: 0.2 * max(x.shape) ** 0.5 * x for name, x in steps.items()})
    return optax.chain(muon, scale)


MEASURED = {
    "adamw": Measured(checks.CASES["adamw"], lambda o: optax.scale_by_adam(*o.betas, o.eps), True),
    "sgd": Measured(checks.CASES["sgd"], lambda o: optax.trace(o.momentum, o.nesterov), True),
    "sgd, plain momentum": Measured(
        checks.CASES["sgd, plain momentum"], lambda o: optax.trace(o.momentum, o.nesterov), True
    ),
    "lion": Measured(checks.CASES["lion"], lambda o: optax.scale_by_lion(*o.betas), True),
    "muon": Measured(
        Optim(kind="muon"),
        library_muon,
        False,
        "Nesterov's form takes the next update's bias correction",
    ),
    "muon, plain momentum": Measured(
        Optim(kind="muon", nesterov=False),
        library_muon,
        False,
        "the bias of the momentum is corrected, which 1e-7 beside the norm tells apart",
    ),
    "adafactor": Measured(
        Optim(kind="adafactor"),
        lambda o: optax.chain(
            optax.scale_by_factored_rms(decay_rate=o.decay_power, min_dim_size_to_factor=1),
            optax.clip_by_block_rms(o.clip_rms),
            optax.scale_by_param_block_rms(o.min_rms),
        ),
        False,
        "the second moment decays by a float32 number, and the two longest sides are factored, not the last two",
    ),
    "schedule_free": Measured(
        Optim(kind="schedule_free"), None, False, "schedule_free weighs by the largest rate so far (see LIBRARY)"
    ),
    "adamw8bit": Measured(Optim(kind="adamw8bit"), None, False, "no 8-bit moments"),
}


def test_every_optimizer_was_measured():
    assert {measured.optim.kind for measured in MEASURED.values()} == set(OPTIMIZERS)
    assert all(measured.equal or measured.because for measured in MEASURED.values())


@pytest.mark.parametrize("name", [name for name, measured in MEASURED.items() if measured.direction])
def test_what_of_optax_is_the_specification(name):
    """Equal to 1e-12 or not, with multipliers, decay and a table of rates: what changes with optax is seen here."""
    optim, direction, equal, _ = MEASURED[name]
    values, grads = checks.case()
    if optim.kind == "muon":
        values = {name: values[name] for name in ("tall", "wide")}  # its matrices have two sides
        grads = [{name: g[name] for name in values} for g in grads]
    transform, params = direction(optim), arrays(values)
    state = transform.init(params)
    for grad, lr in zip(grads, checks.RATES, strict=True):
        steps, state = transform.update(arrays(grad), state, params)
        params = {
            name: p * (1 - lr * checks.GROUPS[name].decay) - lr * checks.GROUPS[name].lr_multiplier * steps[name]
            for name, p in params.items()
        }
    assert (specification_error(optim, values, grads, params) < 1e-12) == equal


def specification_error(optim, values, grads, found):
    """Returns the largest relative error of the parameters after the last update."""
    oracle = getattr(oracles_optim, optim.kind)
    expected = {n: oracle(optim, checks.GROUPS[n], p, [g[n] for g in grads], checks.RATES) for n, p in values.items()}
    return max(np.linalg.norm(found[name] - e) / np.linalg.norm(e) for name, e in expected.items())
