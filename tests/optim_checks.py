"""What the optimizers of either twin must do.

A check takes `run(optim, parameter_groups, params, grads, rates)`: the parameters to evaluate, after an update with
each of the gradients and learning rates, all in NumPy; or the twin's `build` of an engine.
"""

import numpy as np
import pytest
from engine_checks import CONFIG, VOCAB, batch

from slm_core.config import Optim
from slm_core.config.fields import with_values
from slm_core.model.initialization import Spec
from slm_core.model.parameter_groups import DECAYS, ParameterGroup, balance_steps, parameter_groups, weight_decay
from tests.reference import optimizers as oracles_optim

TOLERANCE = dict(rtol=1e-11, atol=1e-13)
CASES = {
    "adamw": Optim(betas=(0.8, 0.99), eps=1e-3),
    "adamw without momentum": Optim(betas=(0.0, 0.9)),
    "adamw8bit": Optim(kind="adamw8bit", betas=(0.8, 0.99), eps=1e-3, quantised_block=4, quantised_from=15),
    "sgd": Optim(kind="sgd", momentum=0.8),
    "sgd, plain momentum": Optim(kind="sgd", momentum=0.8, nesterov=False),
    "sgd, no momentum": Optim(kind="sgd", momentum=0.0, nesterov=False),
    "lion": Optim(kind="lion", betas=(0.7, 0.95)),
    "muon": Optim(kind="muon", betas=(0.8, 0.99), eps=1e-3, momentum=0.9),
    "muon, spectral": Optim(kind="muon", momentum=0.7, nesterov=False, muon_scale="spectral", newton_schulz_steps=3),
    "adafactor": Optim(kind="adafactor"),
    "adafactor, clipped": Optim(kind="adafactor", decay_power=0.5, clip_rms=0.3, min_rms=2.0),
    "schedule_free": Optim(kind="schedule_free", betas=(0.8, 0.99), eps=1e-3),
}
GROUPS = {
    "tall": ParameterGroup("matrix", decay=0.3),
    "wide": ParameterGroup("matrix", lr_multiplier=0.5, decay=0.3),
    "experts": ParameterGroup("matrix"),
    "embed": ParameterGroup("embedding", lr_multiplier=2.0),
    "norm": ParameterGroup("norm"),
}
SHAPES = {"tall": (5, 3), "wide": (3, 5), "experts": (2, 4, 3), "embed": (6, 3), "norm": (3,)}
RATES = [1e-2, 2e-2, 5e-3, 1e-1, 1e-3]


def case(seed: int = 0) -> tuple[dict, list[dict]]:
    """Returns parameters and the gradients of each update; one element never has a gradient."""
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    grads = [{name: rng.standard_normal(shape) for name, shape in SHAPES.items()} for _ in RATES]
    for g in grads:
        g["embed"][1, 2] = 0
    return params, grads


def check_formula(run, name: str) -> None:
    """The update is the paper's, with each parameter's rate and decay."""
    optim, (params, grads) = CASES[name], case()
    found = run(optim, GROUPS, params, grads, RATES)
    for name, start in params.items():
        oracle = getattr(oracles_optim, optim.kind)
        expected = oracle(optim, GROUPS[name], start, [g[name] for g in grads], RATES)
        np.testing.assert_allclose(found[name], expected, **TOLERANCE, err_msg=name)


def check_slices(run, patch, module: str) -> None:
    """A large parameter is worked on in slices of whole blocks, the last of them shorter."""
    whole = run(CASES["adamw8bit"], GROUPS, *case(), RATES)
    for size in (1, 8):  # values; fewer than a block are a block
        patch.setattr(f"{module}.SLICE", size)
        for name, value in run(CASES["adamw8bit"], GROUPS, *case(), RATES).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-12, err_msg=name)


def check_zero_gradients(run, name: str) -> None:
    """A parameter whose gradient is zero throughout only decays, in float32 as well."""
    params = {name: value.astype(np.float32) for name, value in case()[0].items()}
    grads = [{name: np.zeros_like(value) for name, value in params.items()} for _ in RATES]
    plain = {name: ParameterGroup(group.role) for name, group in GROUPS.items()}
    found = run(CASES[name], plain, params, grads, RATES)
    for name, start in params.items():
        np.testing.assert_allclose(found[name], start, rtol=1e-6, err_msg=name)


def check_orthogonal(orthogonal) -> None:
    """orthogonal(optim, u): singular values of either shape come near 1, and directions stay."""
    rng = np.random.default_rng(0)
    for shape in ((8, 5), (5, 8), (6, 6), (3, 4, 7)):
        u = rng.standard_normal(shape)
        left, s, right = np.linalg.svd(orthogonal(Optim(kind="muon"), u), full_matrices=False)
        assert s.min() > 0.6 and s.max() < 1.3
        polar = np.linalg.svd(u, full_matrices=False)
        cosine = np.sum((left @ right) * (polar[0] @ polar[2]), axis=(-2, -1)) / min(shape[-2:])
        np.testing.assert_allclose(cosine, 1, rtol=1e-9)
    assert not orthogonal(Optim(kind="muon"), np.zeros((3, 2))).any()


def check_parameter_groups() -> None:
    """Weight decay by role; a scalar never decays; no optimizer sees a balance or what is frozen."""
    specs = {role: Spec(role) for role in DECAYS} | {"balance": Spec("balance", step=0.25)}
    every = {f"optim.decay_{kind}": True for kind in ("embeddings", "norms", "biases")}
    for overrides, decayed in (({}, {"matrix", "head"}), (every, set(DECAYS) - {"scalar", "balance", "frozen"})):
        config = with_values(CONFIG, overrides)
        found = parameter_groups(specs, config)
        assert found.keys() == specs.keys() - {"balance", "frozen"}
        assert {role for role, group in found.items() if group.decay} == decayed
        assert {group.decay for group in found.values()} == {0.0, config.optim.weight_decay}
        assert not weight_decay("balance", config.optim)
    assert balance_steps(specs) == {"balance": 0.25}


def check_balance(build, patch, module: str) -> None:
    """A parameter of role balance moves by its step against its gradient's sign, outside norm, clipping and state."""
    biased = with_values(CONFIG, {"model.attention.bias": True, "optim.clip_norm": 1e3})
    expected = build(biased, VOCAB)
    plain = expected.fetch(expected.train_step(batch(), 1e-2, 0))
    patch.setattr(f"{module}.BIAS", Spec("balance", step=0.25))
    engine = build(biased, VOCAB)
    metrics = engine.fetch(engine.train_step(batch(), 1e-2, 0))
    state, wanted = engine.export_state(), expected.export_state()
    biases = [name for name in state if name.startswith("params/") and name.endswith("bias")]
    assert biases and metrics["grad_norm"] < plain["grad_norm"]
    squares = [g for name, g in wanted.items() if name.startswith("optim/m/") and not name.endswith("bias")]
    norm = np.sqrt(sum(np.square(m / 0.1).sum() for m in squares))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-12)
    for name in biases:
        moment = wanted[name.replace("params/", "optim/m/")]
        np.testing.assert_array_equal(state[name], -0.25 * np.sign(moment))
        assert name.replace("params/", "optim/m/") not in state
    for name in state.keys() - set(biases):
        np.testing.assert_allclose(state[name], wanted[name], rtol=1e-12, atol=1e-15, err_msg=name)


def check_averages(build) -> None:
    """Evaluation and decoding see the averages of schedule_free; training goes on from what it left."""
    free = with_values(CONFIG, {"optim.kind": "schedule_free", "optim.schedule": "constant"})
    engine, undisturbed, other = build(free, VOCAB), build(free, VOCAB), build(free, VOCAB)
    plain = build(CONFIG, VOCAB)
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
        plain.import_state(plain.export_state() | x)
        wanted = plain.eval_step(batch())[0]
        other.import_state(state)
        assert engine.eval_step(batch())[0] == pytest.approx(wanted, rel=1e-12)
        assert other.eval_step(batch())[0] == pytest.approx(wanted, rel=1e-12)
        plain.import_state(plain.export_state() | {f"params/{name}": value for name, value in y.items()})
        assert step == 0 or plain.eval_step(batch())[0] != pytest.approx(wanted, rel=1e-6)
        plain.import_state(plain.export_state() | x)
        logits = [found.decoder().prefill([1, 2, 3]) for found in (engine, other, plain)]
        np.testing.assert_allclose(logits[0], logits[2], rtol=1e-10)
        np.testing.assert_allclose(logits[1], logits[2], rtol=1e-10)
    a, b = engine.export_state(), undisturbed.export_state()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def check_8_bits_train_alike(build) -> None:
    """A thousand updates on text from a Markov chain end at the loss of AdamW, and in a quarter of its memory."""
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
        engine = build(with_values(CONFIG, small | {"optim.kind": kind, "optim.quantised_from": 1024}), 61)
        losses = []
        for step, rows in enumerate(starts):
            tokens = np.array([text[start : start + 33] for start in rows], np.int32)
            losses.append(engine.fetch(engine.train_step(tokens, 3e-3, step))["loss"])
        state = engine.export_state()
        ends[kind] = np.mean(losses[-100:])
        sizes[kind] = sum(array.nbytes for name, array in state.items() if name.startswith("optim/"))
    assert abs(ends["adamw8bit"] - ends["adamw"]) < 0.005 and losses[0] - ends["adamw8bit"] > 1
    assert sizes["adamw8bit"] < 0.27 * sizes["adamw"]


def check_state(build, kind: str) -> None:
    """What is exported is a copy, comes back, and the next update is the same; a non-finite one changes nothing."""
    config = with_values(CONFIG, {"optim.kind": kind, "optim.schedule": "constant", "optim.quantised_from": 64})
    engine, other = build(config, VOCAB), build(config, VOCAB)
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
