"""An update: accumulation, recomputation, clipping, loss scaling, and skipped updates."""

import numpy as np
import pytest

from slm_core.config import Memory, Precision
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.protocols import first_of_document
from slm_core.training.divergence import first_not_finite
from tests.conformance.small_engine import CONFIG, VOCAB, batch, check_equal_updates, updated
from tests.tiers import some_slow

DEEP = {"model.n_layers": 6, "model.z_loss": 0.01, "model.pattern": "attention.window=3 | ."}
TURNS = {"model.n_layers": 4, "model.pattern": "attention.window=3 | ."}
MIXED = {
    "model.n_layers": 4, "model.attention.kind": "differential", "model.attention.value_residual": True,
    "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2, "model.mlp.balance_bias": 0.01,
    "model.mlp.router_z_loss": 0.01,
}  # fmt: skip
"""Layers that repeat, in turns or after a first one of another kind."""
TWO_ROWS = {"train.micro_batch_size": 2}
SAME_FUNCTION = {
    "accumulation": ({}, {"train.micro_batch_size": 1}),
    "accumulation by two": ({}, {"train.micro_batch_size": 2}),
    "loss chunks": ({}, {"memory.loss_chunk": 5}),
    "one loss chunk": ({}, {"memory.loss_chunk": 100}),
    "everything": ({}, {"memory": Memory(remat="block", loss_chunk=5), "train.micro_batch_size": 2}),
    "remat, in turns": (TURNS, TURNS | {"memory.remat": "block"}),
    "remat, groups": (DEEP, DEEP | {"memory.remat": "full", "train.micro_batch_size": 2}),
    "remat, mixture": (MIXED, MIXED | {"memory.remat": "block"}),
    "remat, products": (MIXED | TWO_ROWS, MIXED | TWO_ROWS | {"memory.remat": "attention"}),
}
"""Pairs of overrides that must train alike, to 1e-12 in float64."""
STACKED = {
    "model.n_layers": 3, "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2,
    "model.mlp.balance_bias": 0.01, "memory.remat": "block", "optim.kind": "adamw8bit", "optim.quantised_from": 128,
    "optim.quantised_block": 8, "precision.params": "float32", "precision.compute": "float16",
}  # fmt: skip
"""Layers that the Flax twin stacks, with every kind of state."""


def scaler_cases() -> list[tuple[Precision, list[bool], list[float]]]:
    """Lists (precision, whether each update was finite, the loss scale after each)."""
    precision = Precision(
        loss_scale_init=8.0, loss_scale_growth_interval=2, loss_scale_backoff=0.25, loss_scale_max=32.0
    )
    # float32 cannot store these numbers exactly; the scale, its factors and its limit are float32.
    uneven = Precision(
        loss_scale_init=1000.1, loss_scale_growth_interval=1, loss_scale_backoff=0.3, loss_scale_max=700.7
    )
    once = np.float32(1000.1) * np.float32(0.3)
    twice = once * np.float32(0.3)
    scales = [float(scale) for scale in (once, twice, 2 * twice, 4 * twice, np.float32(700.7))]
    return [
        (precision, [True, True, True, True, True, True], [8, 16, 16, 32, 32, 32]),
        (precision, [True, False, True, True], [8, 2, 2, 4]),
        (precision, [False, False, False, True], [2, 1, 1, 1]),
        (uneven, [False, False, True, True, True], scales),
    ]


@pytest.mark.parametrize("name", some_slow(SAME_FUNCTION, "remat, groups", "remat, mixture", "remat, products"))
def test_ways_to_save_memory_change_no_update(twin, name):
    check_equal_updates(twin.build, *SAME_FUNCTION[name])


def test_gradients_are_cut_to_the_limit_and_the_reported_norm_is_uncut(twin):
    """The first moment after one update is (1 - beta1) times the cut gradient. The reported norm is uncut."""
    for limit, scaled in ((1e-3, True), (1e3, False)):
        state, metrics = updated(twin.build, {"optim.clip_norm": limit})
        norm = np.sqrt(sum(np.square(v).sum() for name, v in state.items() if name.startswith("optim/m/")))
        assert norm == pytest.approx(0.1 * (limit if scaled else metrics["grad_norm"]), rel=1e-12)


def test_a_batch_without_a_target_has_no_loss(twin):
    """Documents that are kept apart may leave a batch without one. It counts as a finite update without gradients."""
    engine = twin.build(CONFIG, VOCAB)
    metrics = engine.train_step(first_of_document(batch(ignored=False)), lr=1e-3, step=0)
    assert [float(metrics[name]) for name in ("loss", "grad_norm", "skipped")] == [0, 0, 0]


def test_an_overflow_is_skipped_and_halves_the_scale(twin):
    """An overflowing float16 update leaves parameters and optimizer bitwise as they were and halves the scale."""
    half = {"precision.params": "float32", "precision.compute": "float16", "precision.loss_scale_init": 2.0**40}
    engine = twin.build(with_values(CONFIG, half), VOCAB)
    before = {name: np.array(value) for name, value in engine.export_state().items()}
    metrics = engine.fetch(engine.train_step(batch(), 1e-2, 0))
    after = engine.export_state()
    assert metrics["skipped"] == 1 and metrics["loss_scale"] == 2.0**40 and np.isfinite(metrics["loss"])
    for name in before:
        if not name.startswith("scaler/"):
            assert before[name].tobytes() == np.asarray(after[name]).tobytes(), name
    assert float(after["scaler/scale"]) == 2.0**39
    for step in range(1, 40):
        metrics = engine.fetch(engine.train_step(batch(), 1e-2, step))
    assert metrics["skipped"] == 0
    trained = engine.export_state()
    assert all(
        np.asarray(trained[name]).tobytes() != before[name].tobytes() for name in ("params/embed.weight", "optim/count")
    )


def test_a_non_finite_update_is_skipped_without_loss_scaling_too(twin):
    """Without loss scaling, too, an update of NaN is not applied, and the scale stays 1."""
    engine = twin.build(CONFIG, VOCAB)
    state = {name: np.array(value) for name, value in engine.export_state().items()}
    state["params/embed.weight"][:] = np.inf
    engine.import_state(state)
    metrics = engine.fetch(engine.train_step(batch(), 1e-2, 0))
    after = engine.export_state()
    assert metrics["skipped"] == 1 and metrics["loss_scale"] == 1
    assert all(np.asarray(after[name]).tobytes() == state[name].tobytes() for name in state)


@pytest.mark.parametrize("remat", ["none", "block"])
def test_a_parameter_that_is_not_finite_is_named(twin, remat):
    """Also one of layers that repeat, which the Flax twin stacks."""
    engine = twin.build(with_values(CONFIG, DEEP | {"memory.remat": remat}), VOCAB)
    assert engine.non_finite_parameter() == ""
    state = {name: np.array(value) for name, value in engine.export_state().items()}
    for name in ("params/layers.3.mlp.down_proj.weight", "params/layers.2.mlp.up_proj.weight"):
        for value in (np.nan, np.inf, -np.inf):
            damaged = state[name].copy()
            damaged[1, 2] = value
            engine.import_state(state | {name: damaged})
            assert engine.non_finite_parameter() == name.removeprefix("params/")


def test_the_first_activation_that_is_not_finite_is_named(twin):
    engine = twin.build(with_values(CONFIG, {"model.n_layers": 3}), VOCAB)
    state = {name: np.array(value) for name, value in engine.export_state().items()}
    name = "params/layers.1.mlp.down_proj.weight"
    engine.import_state(state | {name: np.full_like(state[name], np.inf)})
    metrics = engine.fetch(engine.train_step(batch(), 1e-2, 0))
    assert metrics["skipped"] == 1
    said = first_not_finite(engine.details(batch(), 0))
    assert said == " (the first activation that is not finite is that of layers.1.mlp)"


@pytest.mark.slow
def test_layers_that_repeat_are_skipped_with_all_their_state(twin):
    """An overflow leaves parameters, codes, scales, counts and routing biases of layers that repeat bitwise as they
    were; the update after it moves them.
    """
    engine = twin.build(with_values(CONFIG, STACKED), VOCAB)
    for step in range(2):
        engine.train_step(batch(), 1e-2, step)
    before = {name: np.array(value) for name, value in engine.export_state().items()}
    states = {name for name in before if not name.startswith("scaler/")}
    assert {"params/layers.2.mlp.balance", "optim/m_scale/layers.2.mlp.up_proj.weight", "optim/count"} < states
    for scale, expected in ((2.0**40, set()), (2.0**10, states)):
        engine.import_state(before | {"scaler/scale": np.array(scale, np.float32)})
        metrics = engine.fetch(engine.train_step(batch(), 1e-2, 2))
        after = engine.export_state()
        moved = {name for name in states if before[name].tobytes() != np.asarray(after[name]).tobytes()}
        assert moved == expected and metrics["skipped"] == (not moved) and np.isfinite(metrics["loss"])


@pytest.mark.parametrize(("precision", "finite", "scales"), scaler_cases())
def test_the_loss_scale_grows_and_falls_in_float32(twin, precision, finite, scales):
    assert twin.loss_scales(precision, finite) == scales


def test_auto_computes_in_float32_or_in_the_dtype_of_the_parameters(twin):
    """On a CPU, auto is float32, or float64 if the parameters are float64."""
    for params in ("float32", "float64"):
        values = {"precision.params": params, "precision.compute": "auto"}
        assert twin.build(with_values(CONFIG, values), VOCAB).compute == params


def test_a_run_that_cannot_fit_in_memory_is_refused(twin):
    """A run that cannot fit is refused in one line, with numbers. For one that fits, the choices are shown."""
    with pytest.raises(UserError, match=r"memory.limit_gb=1e-06: this run would take .* set ") as caught:
        twin.build(with_values(CONFIG, {"memory.limit_gb": 1e-6}), VOCAB)
    assert "\n" not in str(caught.value)
    engine = twin.build(CONFIG, VOCAB)
    assert (engine.config.memory.remat, engine.config.memory.loss_chunk, engine.config.train.micro_batch_size) == (
        "none", 0, 4,
    )  # fmt: skip
    facts = engine.facts()
    assert facts["micro_batch_size"] == "4 (fits)" and "of 6.00 GB predicted: weights" in facts["limit_gb"]
