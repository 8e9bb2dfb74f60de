"""The optimizers against the papers' formulas in float64, alone and in an engine."""

import numpy as np
import pytest

from parity.fields import choices
from slm_core.config import Optim
from slm_core.config.fields import with_values
from slm_core.model.initialization import Spec
from slm_core.model.mup import POWERS
from slm_core.model.parameter_groups import ParameterGroup
from tests.conformance.optimizer_cases import CASES, GROUPS, LEARNING_RATES, TOLERANCE, case
from tests.conformance.small_engine import CONFIG, VOCAB, batch
from tests.gates import require
from tests.reference import optimizers as reference
from tests.tiers import some_slow


def test_every_optimizer_has_a_case():
    """Each kind is compared with its formula, tests/reference/optimizers.py, and has its rule of muP."""
    cases, powers = ({name.partition(",")[0] for name in names} for names in (CASES, POWERS))
    require({kind: "a case in tests/conformance/optimizer_cases.py" for kind in set(choices("optim.kind")) - cases})
    require({kind: "its line in POWERS, slm_core/model/mup.py" for kind in set(choices("optim.kind")) - powers})


@pytest.mark.parametrize("name", CASES)
def test_an_update_is_the_paper_s(twin, name):
    """The update is the paper's, with each parameter's learning rate and decay."""
    optim, (params, grads) = CASES[name], case()
    params_after = twin.optimized(optim, GROUPS, params, grads, LEARNING_RATES)
    for name, start in params.items():
        formula = getattr(reference, optim.kind)
        expected = formula(optim, GROUPS[name], start, [g[name] for g in grads], LEARNING_RATES)
        np.testing.assert_allclose(params_after[name], expected, **TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_without_gradients_a_parameter_only_decays(twin, name):
    """A parameter whose gradient is zero throughout only decays, in float32 as well."""
    params = {name: value.astype(np.float32) for name, value in case()[0].items()}
    grads = [{name: np.zeros_like(value) for name, value in params.items()} for _ in LEARNING_RATES]
    groups = {name: ParameterGroup(group.role) for name, group in GROUPS.items()}
    params_after = twin.optimized(CASES[name], groups, params, grads, LEARNING_RATES)
    for name, start in params.items():
        np.testing.assert_allclose(params_after[name], start, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_the_bias_correction_keeps_the_digits_of_float32(twin, kind):
    """The first updates with b2 = 0.999 are the paper's to float32's rounding: 1 - b2^t must lose no digits."""
    optim, rng = Optim(kind=kind, betas=(0.9, 0.999)), np.random.default_rng(0)
    groups, params = {"w": ParameterGroup("norm")}, {"w": np.zeros(64, np.float32)}
    grads = [{"w": rng.uniform(0.5, 1, 64).astype(np.float32)} for _ in range(3)]
    learning_rates = [2.0**-10] * len(grads)
    updated = twin.optimized(optim, groups, params, grads, learning_rates)
    expected = reference.adamw(optim, groups["w"], np.zeros(64), [g["w"].astype(float) for g in grads], learning_rates)
    np.testing.assert_allclose(updated["w"], expected, rtol=1e-6)


def test_a_large_parameter_is_updated_in_slices(twin, monkeypatch):
    """A large parameter is updated in slices of whole blocks. The last slice is shorter."""
    whole = twin.optimized(CASES["adamw8bit"], GROUPS, *case(), LEARNING_RATES)
    for size in (1, 8):  # values; fewer than a block are a block
        monkeypatch.setattr(f"slm_{twin.NAME}.optim.adamw8bit.SLICE", size)
        for name, value in twin.optimized(CASES["adamw8bit"], GROUPS, *case(), LEARNING_RATES).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-12, err_msg=name)


def test_muon_makes_directions_orthogonal(twin):
    """Singular values of matrices of either shape come near 1, and directions stay."""
    rng = np.random.default_rng(0)
    for shape in ((8, 5), (5, 8), (6, 6), (3, 4, 7)):
        u = rng.standard_normal(shape)
        left, s, right = np.linalg.svd(twin.orthogonal(Optim(kind="muon"), u), full_matrices=False)
        assert s.min() > 0.6 and s.max() < 1.3
        polar = np.linalg.svd(u, full_matrices=False)
        cosine = np.sum((left @ right) * (polar[0] @ polar[2]), axis=(-2, -1)) / min(shape[-2:])
        np.testing.assert_allclose(cosine, 1, rtol=1e-9)
    assert not twin.orthogonal(Optim(kind="muon"), np.zeros((3, 2))).any()


def test_the_clip_factor_is_the_limit_over_the_norm(twin):
    assert twin.clip_factor(4.0, 1.0) == 0.25 and twin.clip_factor(0.5, 1.0) == 1 and twin.clip_factor(4.0, 0.0) == 1


@pytest.mark.parametrize("kind", some_slow(choices("optim.kind"), "sgd", "lion", "adafactor", "schedule_free"))
def test_an_exported_state_comes_back(twin, kind):
    """An exported state is a copy. Imported, it gives the same next update. A non-finite update changes nothing."""
    config = with_values(CONFIG, {"optim.kind": kind, "optim.schedule": "constant", "optim.quantised_from": 64})
    engine, other = twin.build(config, VOCAB), twin.build(config, VOCAB)
    other.train_step(batch(ignored=False), 1e-1, 0)
    for step in range(2):
        engine.train_step(batch(), 1e-2, step)
    state = engine.export_state()
    kept = {name: value.copy() for name, value in state.items()}
    other.import_state(state)
    for trained in (engine, other):
        trained.train_step(batch(), 1e-2, 2)
    a, b = engine.export_state(), other.export_state()
    assert a["optim/count"] == 3 and a["optim/count"].dtype == np.int32
    dtypes = {"f8", "i4", "u1"} if kind == "adamw8bit" else {"f8", "i4"}
    assert {value.dtype.str[1:] for name, value in a.items() if name.startswith("optim/")} == dtypes
    assert all(state[name].tobytes() == kept[name].tobytes() for name in state)
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)
    broken = a | {"params/embed.weight": np.full_like(a["params/embed.weight"], np.inf)}
    engine.import_state(broken)
    assert engine.fetch(engine.train_step(batch(), 1e-2, 3))["skipped"] == 1
    after = engine.export_state()
    assert all(after[name].tobytes() == broken[name].tobytes() for name in broken)


def test_schedule_free_evaluates_its_averages(twin):
    """Evaluation and decoding see the averages of schedule_free; training goes on from the weights that it moves."""
    free = with_values(CONFIG, {"optim.kind": "schedule_free", "optim.schedule": "constant"})
    engine, undisturbed, other = twin.build(free, VOCAB), twin.build(free, VOCAB), twin.build(free, VOCAB)
    at_average = twin.build(CONFIG, VOCAB)
    b1 = free.optim.betas[0]
    for step in range(4):
        for trained in (engine, undisturbed):
            trained.train_step(batch(), 1e-2, step)
        state = engine.export_state()
        y, z = (
            {n.removeprefix(part): v for n, v in state.items() if n.startswith(part)}
            for part in ("params/", "optim/z/")
        )
        x = {f"params/{name}": (y[name] - (1 - b1) * z[name]) / b1 for name in y}
        at_average.import_state(at_average.export_state() | x)
        expected = at_average.eval_step(batch())[0]
        other.import_state(state)
        assert engine.eval_step(batch())[0] == pytest.approx(expected, rel=1e-12)
        assert other.eval_step(batch())[0] == pytest.approx(expected, rel=1e-12)
        at_average.import_state(at_average.export_state() | {f"params/{name}": value for name, value in y.items()})
        assert step == 0 or at_average.eval_step(batch())[0] != pytest.approx(expected, rel=1e-6)
        at_average.import_state(at_average.export_state() | x)
        logits = [each.decoder().prefill([1, 2, 3]) for each in (engine, other, at_average)]
        np.testing.assert_allclose(logits[0], logits[2], rtol=1e-10)
        np.testing.assert_allclose(logits[1], logits[2], rtol=1e-10)
    a, b = engine.export_state(), undisturbed.export_state()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_schedule_free_weighs_by_the_schedule_s_rate(twin):
    """With adapters alone, muP multiplies every rate. The weights of the averages do not follow it."""
    values = {
        "optim.kind": "schedule_free", "optim.schedule": "constant", "model.mup_base_width": 2,
        "finetune.kind": "lora", "finetune.rank": 2, "finetune.targets": ".*q_proj",
    }  # fmt: skip
    engine = twin.build(with_values(CONFIG, values), VOCAB)
    for step, lr in enumerate((1e-2, 2e-2)):
        engine.fetch(engine.train_step(batch(), lr, step))
    assert engine.export_state()["optim/weight_sum"] == pytest.approx(1e-4 + 4e-4, rel=1e-12)


def test_a_balance_moves_by_its_step_alone(twin, monkeypatch):
    """A parameter of role balance moves by its step against its gradient's sign, outside norm, clipping and state."""
    biased = with_values(CONFIG, {"model.attention.bias": True, "optim.clip_norm": 1e3})
    expected = twin.build(biased, VOCAB)
    expected_metrics = expected.fetch(expected.train_step(batch(), 1e-2, 0))
    monkeypatch.setattr(f"slm_{twin.NAME}.layers.linear.BIAS", Spec("balance", step=0.25))
    engine = twin.build(biased, VOCAB)
    metrics = engine.fetch(engine.train_step(batch(), 1e-2, 0))
    state, expected_state = engine.export_state(), expected.export_state()
    biases = [name for name in state if name.startswith("params/") and name.endswith("bias")]
    assert biases and metrics["grad_norm"] < expected_metrics["grad_norm"]
    squares = [g for name, g in expected_state.items() if name.startswith("optim/m/") and not name.endswith("bias")]
    norm = np.sqrt(sum(np.square(m / 0.1).sum() for m in squares))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-12)
    for name in biases:
        moment = expected_state[name.replace("params/", "optim/m/")]
        np.testing.assert_array_equal(state[name], -0.25 * np.sign(moment))
        assert name.replace("params/", "optim/m/") not in state
    for name in state.keys() - set(biases):
        np.testing.assert_allclose(state[name], expected_state[name], rtol=1e-12, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("twin", some_slow(("torch", "flax"), "flax", exhaustive=["torch"]), indirect=True)
def test_8_bit_moments_train_as_wide_ones(twin):
    """A thousand updates on text from a Markov chain end at AdamW's loss, with a quarter of its memory."""
    rng = np.random.default_rng(0)
    chances = np.cumsum(rng.dirichlet(np.full(61, 0.1), 61), axis=1)
    text = [0]
    for draw in rng.random(40_000):
        text.append(int(np.searchsorted(chances[text[-1]], draw)) % 61)
    starts = rng.integers(0, len(text) - 33, (1000, 8))
    small = {
        "model.d_model": 64, "model.attention.n_heads": 4, "model.dropout": 0.0, "data.seq_len": 32,
        "optim.clip_norm": 1.0, "train.batch_size": 8, "precision.params": "float32", "precision.compute": "float32",
    }  # fmt: skip
    ends, sizes = {}, {}
    for kind in ("adamw", "adamw8bit"):
        engine = twin.build(with_values(CONFIG, small | {"optim.kind": kind, "optim.quantised_from": 1024}), 61)
        losses = []
        for step, rows in enumerate(starts):
            tokens = np.array([text[start : start + 33] for start in rows], np.int32)
            losses.append(engine.fetch(engine.train_step(tokens, 3e-3, step))["loss"])
        state = engine.export_state()
        ends[kind] = np.mean(losses[-100:])
        sizes[kind] = sum(array.nbytes for name, array in state.items() if name.startswith("optim/"))
    assert abs(ends["adamw8bit"] - ends["adamw"]) < 0.005 and losses[0] - ends["adamw8bit"] > 1
    assert sizes["adamw8bit"] < 0.27 * sizes["adamw"]
