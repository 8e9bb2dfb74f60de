"""optax's own optimizers beside the specification, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from slm_core.config import Optim
from slm_flax.optim import OPTIMIZERS
from slm_flax.optim.base import Optimizer, names, scheduled
from tests.conformance.optimizer_cases import CASES, GROUPS, LEARNING_RATES, case
from tests.conformance.twins import flax as twin
from tests.gates import require
from tests.reference import optimizers as reference
from tests.tiers import some_slow


@pytest.fixture(autouse=True)
def float64():
    twin.prepare()


class Measured(NamedTuple):
    """Compares a specification with optax's own transformation.

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
    "adamw": Measured(CASES["adamw"], lambda o: optax.scale_by_adam(*o.betas, o.eps), True),
    "sgd": Measured(CASES["sgd"], lambda o: optax.trace(o.momentum, o.nesterov), True),
    "sgd, plain momentum": Measured(CASES["sgd, plain momentum"], lambda o: optax.trace(o.momentum, o.nesterov), True),
    "lion": Measured(CASES["lion"], lambda o: optax.scale_by_lion(*o.betas), True),
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
        Optim(kind="schedule_free"), None, False, "schedule_free weighs by the largest rate so far (see tests/outside)"
    ),
    "adamw8bit": Measured(Optim(kind="adamw8bit"), None, False, "no 8-bit moments"),
}
DIRECTED = [name for name, measured in MEASURED.items() if measured.direction]


def test_every_optimizer_was_measured():
    measured_kinds = {measured.optim.kind for measured in MEASURED.values()}
    where = "a line of MEASURED in tests/flax/test_library_optimizers.py"
    require({kind: where for kind in set(OPTIMIZERS) - measured_kinds})
    assert measured_kinds <= set(OPTIMIZERS)
    assert all(measured.equal or measured.because for measured in MEASURED.values())


@pytest.mark.parametrize("name", some_slow(DIRECTED, "muon", "muon, plain momentum"))
def test_which_optimizers_of_optax_equal_the_specification(name):
    """Equal to 1e-12 or not, with multipliers, decay and a table of rates: what changes with optax is seen here."""
    optim, direction, equal, _ = MEASURED[name]
    values, grads = case()
    if optim.kind == "muon":
        values = {name: values[name] for name in ("tall", "wide")}  # its matrices have two sides
        grads = [{name: g[name] for name in values} for g in grads]
    transform, params = direction(optim), twin.parameters(values)
    state = transform.init(params)
    for grad, lr in zip(grads, LEARNING_RATES, strict=True):
        steps, state = transform.update(twin.parameters(grad), state, params)
        params = {
            name: p * (1 - lr * GROUPS[name].decay) - lr * GROUPS[name].lr_multiplier * steps[name]
            for name, p in params.items()
        }
    assert (specification_error(optim, values, grads, params) < 1e-12) == equal


def specification_error(optim, values, grads, params_after):
    """Returns the largest relative error of the parameters after the last update."""
    formula = getattr(reference, optim.kind)
    expected = {n: formula(optim, GROUPS[n], p, [g[n] for g in grads], LEARNING_RATES) for n, p in values.items()}
    return max(np.linalg.norm(params_after[name] - e) / np.linalg.norm(e) for name, e in expected.items())


def test_a_part_that_comes_up_again_is_numbered():
    traces = optax.chain(*(optax.trace(0.9) for _ in range(3)))
    assert names(traces.init(twin.parameters({"w": np.zeros(2)}))) == ["m/w", "m.1/w", "m.2/w"]
    assert names((np.zeros(()),)) == ["state/0"]


def test_a_user_s_chain_takes_the_rate_of_the_schedule():
    optimizer, params = Optimizer(scheduled(optax.sgd(1.0))), twin.parameters({"w": np.ones(2)})
    grads, lr = twin.parameters({"w": np.array([2.0, 4.0])}), jnp.asarray(0.25)
    updated, _ = optimizer.update(grads, optimizer.init(params), params, lr)
    np.testing.assert_allclose(updated["w"], [0.5, 0.0])
