"""What the engine of either twin must do. Each check takes the twin's `build`."""

import weakref

import numpy as np
import pytest

from slm_core.config import Attention, Config, Data, Memory, Model, Optim, Precision, Run, Train
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.model.weights import Lazy
from slm_core.protocols import IGNORE
from slm_core.runs.weights import evaluated, without_adapters

VOCAB = 11
CONFIG = Config(
    model=Model(d_model=8, n_layers=1, dropout=0.2, attention=Attention(n_heads=2, kernel="dot_product")),
    data=Data(seq_len=6),
    optim=Optim(clip_norm=0.5),
    train=Train(batch_size=4),
    precision=Precision(params="float64", compute="float64"),
    run=Run(device="cpu"),
)


def batch(ignored: bool = True) -> np.ndarray:
    """Returns tokens [4, 7]; with targets that do not count, unevenly over the rows, and a whole row of them."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, (4, 7)).astype(np.int32)
    if ignored:
        tokens[0, 4:] = IGNORE
        tokens[3] = IGNORE
    return tokens


def updated(build, overrides: dict, updates: int = 1) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the state and the metrics after some updates."""
    engine = build(with_values(CONFIG, overrides), VOCAB)
    for step in range(updates):
        metrics = engine.fetch(engine.train_step(batch(), 1e-2, step))
    return {name: np.array(value) for name, value in engine.export_state().items()}, metrics


def check_equal_updates(build, overrides: dict, other: dict) -> None:
    """Two configs are the same function."""
    (a, x), (b, y) = updated(build, overrides), updated(build, other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-11, atol=1e-14, err_msg=name)
    assert x == pytest.approx(y, rel=1e-12)


def check_evaluation_ignores(build) -> None:
    """Targets that are IGNORE, rows of them included, neither add to the loss nor to the number."""
    engine = build(CONFIG, VOCAB)
    total, count = engine.eval_step(batch())
    rows = [engine.eval_step(np.repeat(row[None], 4, 0)) for row in batch(ignored=False)]
    assert count == 3 + 6 + 6
    assert engine.eval_step(np.full((4, 7), IGNORE, np.int32)) == (0.0, 0)
    whole = sum(total for total, _ in rows[1:3]) / 4
    assert whole < total < whole + rows[0][0] / 4


def check_clipping(build) -> None:
    """The first moment after one update is (1 - beta1) times a gradient cut to the limit; the norm told is uncut."""
    for limit, scaled in ((1e-3, True), (1e3, False)):
        state, metrics = updated(build, {"optim.clip_norm": limit})
        norm = np.sqrt(sum(np.square(v).sum() for name, v in state.items() if name.startswith("optim/m/")))
        assert norm == pytest.approx(0.1 * (limit if scaled else metrics["grad_norm"]), rel=1e-12)


def check_overflow_is_skipped(build) -> None:
    """An overflowing float16 update leaves parameters and optimizer bitwise as they were and halves the scale."""
    half = {"precision.params": "float32", "precision.compute": "float16", "precision.loss_scale_init": 2.0**40}
    engine = build(with_values(CONFIG, half), VOCAB)
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
    assert any(np.asarray(after[name]).tobytes() != before[name].tobytes() for name in engine.export_state())


def check_non_finite_is_skipped(build) -> None:
    """Without loss scaling, too, an update of NaN is not applied, and the scale stays 1."""
    engine = build(CONFIG, VOCAB)
    state = {name: np.array(value) for name, value in engine.export_state().items()}
    state["params/embed.weight"][:] = np.inf
    engine.import_state(state)
    metrics = engine.fetch(engine.train_step(batch(), 1e-2, 0))
    after = engine.export_state()
    assert metrics["skipped"] == 1 and metrics["loss_scale"] == 1
    assert all(np.asarray(after[name]).tobytes() == state[name].tobytes() for name in state)


def check_a_stack_is_skipped(build) -> None:
    """An overflow leaves parameters, codes, scales, counts and routing biases of layers that repeat bitwise as they
    were; the update after it moves them.
    """
    engine = build(with_values(CONFIG, STACKED), VOCAB)
    for step in range(2):
        engine.train_step(batch(), 1e-2, step)
    before = {name: np.array(value) for name, value in engine.export_state().items()}
    states = {name for name in before if not name.startswith("scaler/")}
    assert {"params/layers.2.mlp.balance", "optim/m_scale/layers.2.mlp.up_proj.weight", "optim/count"} < states
    for scale, wanted in ((2.0**40, set()), (2.0**10, states)):
        engine.import_state(before | {"scaler/scale": np.float32(scale)})
        metrics = engine.fetch(engine.train_step(batch(), 1e-2, 2))
        after = engine.export_state()
        moved = {name for name in states if before[name].tobytes() != np.asarray(after[name]).tobytes()}
        assert moved == wanted and metrics["skipped"] == (not moved) and np.isfinite(metrics["loss"])


def check_state_comes_back(build, folder) -> None:
    """What is saved is what is restored, bitwise, and training goes on the same."""
    folder.mkdir()
    engine, other = build(CONFIG, VOCAB), build(with_values(CONFIG, {"seed": 1}), VOCAB)
    engine.train_step(batch(), 1e-2, 0)
    engine.save(folder)
    other.restore(folder)
    a, b = engine.export_state(), other.export_state()
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def check_damaged_checkpoints(build, folder) -> None:
    """A checkpoint that is missing is an error of one line."""
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be read") as caught:
        build(CONFIG, VOCAB).restore(folder)
    assert "\n" not in str(caught.value)


def check_import_errors(build) -> None:
    """A state of another model is refused, naming the entry."""
    engine = build(CONFIG, VOCAB)
    state = engine.export_state()
    for name, change in (
        ("params/embed.weight", lambda s: s | {"params/embed.weight": np.zeros((3, 8))}),
        ("optim/count", lambda s: {k: v for k, v in s.items() if k != "optim/count"}),
        ("params/extra", lambda s: s | {"params/extra": np.zeros(1)}),
    ):
        with pytest.raises(UserError, match=name):
            engine.import_state(change(state))


def check_import_reads_little_at_once(build) -> None:
    """A state is read entry by entry, and let go: memory holds it in the engine alone."""
    engine = build(CONFIG, VOCAB)
    state, given, most, asked = engine.export_state(), [], [], []

    def read(name: str) -> np.ndarray:
        array = np.array(state[name])
        given.append(weakref.ref(array))
        most.append(sum(each() is not None for each in given))
        asked.append(name)
        return array

    engine.import_state(Lazy({name: lambda name=name: read(name) for name in state}))
    assert set(asked) == set(state) and len(asked) < 1.5 * len(state)  # the check of signatures reads some, too
    assert max(most) <= 2  # the one before goes when this one has come


def check_half_decodes(build) -> None:
    """Either kernel decodes in either half precision: prefill and steps, close to float32."""
    for kernel in ("dot_product", "fused"):
        single = {"precision.params": "float32", "model.attention.kernel": kernel}
        logits = {}
        for compute in ("float32", "float16", "bfloat16"):
            decoder = build(with_values(CONFIG, single | {"precision.compute": compute}), VOCAB).decoder()
            logits[compute] = np.stack([decoder.prefill([1, 2, 3]), decoder.step(4)]).astype(np.float32)
        for half in ("float16", "bfloat16"):
            np.testing.assert_allclose(logits[half], logits["float32"], atol=2e-3)


def check_automatic_precision(build) -> None:
    """On a CPU, auto is float32, or float64 where the parameters are."""
    for params in ("float32", "float64"):
        values = {"precision.params": params, "precision.compute": "auto"}
        assert build(with_values(CONFIG, values), VOCAB).compute == params


def check_memory_that_is_not_there(build) -> None:
    """What cannot fit is refused in one line, with numbers; what can is made to, and the choices are told."""
    with pytest.raises(UserError, match=r"memory.limit_gb=1e-06: this run would take .* set ") as caught:
        build(with_values(CONFIG, {"memory.limit_gb": 1e-6}), VOCAB)
    assert "\n" not in str(caught.value)
    engine = build(CONFIG, VOCAB)
    assert (engine.config.memory.remat, engine.config.memory.loss_chunk, engine.config.train.micro_batch_size) == (
        "none", 0, 4,
    )  # fmt: skip
    facts = engine.facts()
    assert facts["micro_batch_size"] == "4 (fits)" and "of 6.00 GB predicted: weights" in facts["limit_gb"]


def check_evaluator(build, evaluator, overrides: dict) -> None:
    """An evaluator with an engine's weights computes the same numbers, bitwise, without an optimizer."""
    config = with_values(CONFIG, overrides)
    averages = config.optim.kind == "schedule_free"
    engine = build(config, VOCAB)
    for step in range(3):
        engine.train_step(batch(), 1e-2, step)
    asked = set()
    state = {name: np.array(value) for name, value in engine.export_state().items()}
    stored = Lazy({name: lambda name=name: asked.add(name) or state[name] for name in state})
    other = evaluator(without_adapters(config), VOCAB, evaluated(stored, config))
    needed = ("params/", "optim/z/") if averages else ("params/",)
    assert asked == {name for name in state if name.startswith(needed)}
    assert not hasattr(other, "optimizer") and not hasattr(other, "scaler")
    if engine.framework == "flax":
        assert not hasattr(other, "state")
    ours, theirs = engine.decoder(), other.decoder()
    # XLA multiplies by a reciprocal where NumPy divides, so averages may differ in their last bit.
    close = {"rtol": 1e-12 if averages else 0, "atol": 0}
    np.testing.assert_allclose(other.eval_step(batch()), engine.eval_step(batch()), **close)
    np.testing.assert_allclose(theirs.prefill([1, 2, 3]), ours.prefill([1, 2, 3]), **close)
    np.testing.assert_allclose(theirs.step(4), ours.step(4), **close)
    same = ("framework", "device", "parameters", "compute")
    assert [other.facts()[name] for name in same] == [engine.facts()[name] for name in same]


def check_evaluator_errors(evaluator) -> None:
    """Weights of another model are refused, naming one; without weights they are the initial ones."""
    with pytest.raises(UserError, match="entry final_norm.weight is absent, this model has") as caught:
        evaluator(CONFIG, VOCAB, {"embed.weight": np.zeros((VOCAB, 8))})
    assert "\n" not in str(caught.value)
    assert evaluator(CONFIG, VOCAB).eval_step(batch()) == evaluator(CONFIG, VOCAB).eval_step(batch())


EVALUATED = {
    "adamw": {},
    "averages": {"optim.kind": "schedule_free", "optim.schedule": "constant"},
    "averages beside a balance": {
        "optim.kind": "schedule_free", "optim.schedule": "constant",
        "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2, "model.mlp.balance_bias": 0.01,
    },
    "loss chunks": {"memory.loss_chunk": 5},
    "bfloat16": {"precision.params": "float32", "precision.compute": "bfloat16"},
}  # fmt: skip
"""Overrides under which an evaluator must compute what its engine computes."""


DEEP = {"model.n_layers": 6, "model.z_loss": 0.01, "model.pattern": "attention.window=3 | ."}
MIXED = {
    "model.n_layers": 4, "model.attention.kind": "differential", "model.attention.value_residual": True,
    "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2, "model.mlp.balance_bias": 0.01,
    "model.mlp.router_z_loss": 0.01,
}  # fmt: skip
"""Layers that repeat, in turns or after a first one of another kind."""
TWO_ROWS = {"train.micro_batch_size": 2}
STACKED = {
    "model.n_layers": 3, "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2,
    "model.mlp.balance_bias": 0.01, "memory.remat": "block", "optim.kind": "adamw8bit", "optim.quantised_from": 128,
    "optim.quantised_block": 8, "precision.params": "float32", "precision.compute": "float16",
}  # fmt: skip
"""Layers that the Flax twin holds as one, with every kind of state."""

SAME_FUNCTION = {
    "accumulation": ({}, {"train.micro_batch_size": 1}),
    "accumulation by two": ({}, {"train.micro_batch_size": 2}),
    "loss chunks": ({}, {"memory.loss_chunk": 5}),
    "one loss chunk": ({}, {"memory.loss_chunk": 100}),
    "everything": ({}, {"memory": Memory(remat="block", loss_chunk=5), "train.micro_batch_size": 2}),
    "remat, groups": (DEEP, DEEP | {"memory.remat": "full", "train.micro_batch_size": 2}),
    "remat, mixture": (MIXED, MIXED | {"memory.remat": "block"}),
    "remat, products": (MIXED | TWO_ROWS, MIXED | TWO_ROWS | {"memory.remat": "attention"}),
}
"""Pairs of overrides that must train alike, to 1e-12 in float64."""


def scaler_cases() -> list[tuple[Precision, list[bool], list[float]]]:
    """Returns (precision, which updates were finite, the scale after each)."""
    plain = Precision(loss_scale_init=8.0, loss_scale_growth_interval=2, loss_scale_backoff=0.25, loss_scale_max=32.0)
    # Numbers that float32 does not hold: the scale, what it is multiplied by and its limit are float32.
    uneven = Precision(
        loss_scale_init=1000.1, loss_scale_growth_interval=1, loss_scale_backoff=0.3, loss_scale_max=700.7
    )
    once = np.float32(1000.1) * np.float32(0.3)
    twice = once * np.float32(0.3)
    scales = [float(scale) for scale in (once, twice, 2 * twice, 4 * twice, np.float32(700.7))]
    return [
        (plain, [True, True, True, True, True, True], [8, 16, 16, 32, 32, 32]),
        (plain, [True, False, True, True], [8, 2, 2, 4]),
        (plain, [False, False, False, True], [2, 1, 1, 1]),
        (uneven, [False, False, True, True, True], scales),
    ]


CHECKS = [
    check_evaluation_ignores, check_clipping, check_overflow_is_skipped, check_non_finite_is_skipped,
    check_import_errors, check_import_reads_little_at_once, check_automatic_precision, check_half_decodes,
    check_memory_that_is_not_there, check_a_stack_is_skipped,
]  # fmt: skip
"""Those that take `build` alone."""

FOLDER_CHECKS = [check_state_comes_back, check_damaged_checkpoints]
"""Those that also take a folder that is not there yet."""
