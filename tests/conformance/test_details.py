"""What both twins measure for train.log_details_every: the norms of one update, which they leave as it was."""

import numpy as np
import pytest

from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.runs.progress import Progress
from slm_core.training.divergence import stop_if_diverged
from tests.conformance.small_engine import CONFIG, VOCAB, batch

STACKED = {
    "model.n_layers": 3, "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2,
    "model.mlp.balance_bias": 0.01, "memory.remat": "block", "memory.loss_chunk": 5, "train.micro_batch_size": 2,
    "optim.kind": "schedule_free", "optim.schedule": "constant",
}  # fmt: skip
"""Layers that the Flax twin stacks, micro-batches, parameters that no loss trains, and weights that are averaged."""
ADAPTED = {"finetune.kind": "lora", "finetune.frozen": "nf4", "model.norm.placement": "parallel_shared"}


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="dense"),
        pytest.param(STACKED, id="stacked", marks=pytest.mark.slow),
        pytest.param(ADAPTED, id="adapted", marks=pytest.mark.slow),
    ],
)
def test_details_are_those_of_the_update_and_change_nothing(twin, overrides):
    """The norms of the gradients are those whose sum of squares the update reports. Training goes on as without."""
    engine = twin.build(with_values(CONFIG, overrides), VOCAB)
    initial, details = state_of(engine), []

    def train(measured):
        metrics = []
        for step in range(2):
            details.extend([engine.details(batch(), step)] if measured else [])
            metrics.append(engine.fetch(engine.train_step(batch(), 1e-2, step)))
        return metrics, {name: value.tobytes() for name, value in state_of(engine).items()}

    expected = train(measured=False)
    engine.import_state(initial)
    assert train(measured=True) == expected
    for measured, metrics in zip(details, expected[0], strict=True):
        norm = np.sqrt(sum(np.square(list(part(measured, "gradient_norm").values()))))
        assert norm == pytest.approx(metrics["grad_norm"], rel=1e-12)
    weights = part(details[0], "weight_norm")
    assert weights.keys() == part(details[0], "gradient_norm").keys()
    assert weights == pytest.approx({name: np.linalg.norm(initial[f"params/{name}"]) for name in weights}, rel=1e-12)
    layers = range(overrides.get("model.n_layers", 1))
    halves = {f"layers.{i}{half}" for i in layers for half in ("", ".attention", ".mlp")}
    assert set(part(details[0], "activation_rms")) == halves
    assert all(type(value) is float for value in details[0].values())
    if overrides is ADAPTED:
        assert all(name.endswith((".lora_a", ".lora_b")) for name in weights)


def test_details_do_not_depend_on_how_the_batch_is_cut(twin):
    """Dropout included: a row's masks go by its place in the whole batch."""
    whole, parts = (twin.build(with_values(CONFIG, {"train.micro_batch_size": rows}), VOCAB) for rows in (4, 1))
    assert parts.details(batch(), 3) == pytest.approx(whole.details(batch(), 3), rel=1e-11)
    assert whole.details(batch(), 3) != whole.details(batch(), 4)


def test_gradients_are_reported_without_the_loss_scale(twin):
    engine = twin.build(with_values(CONFIG, {"precision.params": "float32", "precision.compute": "float16"}), VOCAB)
    initial, measured = state_of(engine), []
    for scale in (2.0**8, 2.0**12, 2.0**40):
        engine.import_state(initial | {"scaler/scale": np.array(scale, np.float32)})
        measured.append(engine.details(batch(), 0))
    small, large, overflowing = measured
    assert large == pytest.approx(small, rel=1e-2) and small["gradient_norm/embed.weight"] > 0
    assert not np.isfinite(overflowing["gradient_norm/embed.weight"])
    assert part(overflowing, "activation_rms") == part(small, "activation_rms")


def test_a_run_that_skips_too_many_updates_is_told_the_place(twin):
    values = {"precision.params": "float32", "precision.compute": "float16", "precision.max_skipped_in_a_row": 2}
    engine = twin.build(with_values(CONFIG, values), VOCAB)
    state, progress = state_of(engine), Progress()
    name = "params/layers.0.mlp.down_proj.weight"
    engine.import_state(state | {name: state[name] * np.float32(1e9)})  # finite, but not in float16

    def update(step):
        metrics = engine.fetch(engine.train_step(batch(), 1e-2, step))
        progress.step, progress.skipped_in_row = step + 1, progress.skipped_in_row + int(metrics["skipped"])
        stop_if_diverged(metrics, progress, engine.config, lambda: None, lambda: engine.details(batch(), step))

    update(0)
    with pytest.raises(UserError, match=r"2 updates in a row .* step 2 \(the first activation .* of layers.0.mlp\)"):
        update(1)


def state_of(engine):
    return {name: np.array(value) for name, value in engine.export_state().items()}


def part(details, kind):
    """Selects the details of a kind, without it in their names."""
    return {name.partition("/")[2]: value for name, value in details.items() if name.startswith(f"{kind}/")}
