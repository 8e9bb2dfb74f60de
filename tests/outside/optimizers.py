"""Optimizers: five updates of parameters of several shapes, by the optimizers of PyTorch and optax."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
import torch
from optax.contrib._muon import orthogonalize_via_newton_schulz
from torch.optim._muon import _adjust_lr

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from tests.conformance.optimizer_cases import case
from tests.outside.formula import Formula

VALUES, GRADS = case()
NO_EXPERTS = {name: value for name, value in VALUES.items() if name != "experts"}
MATRICES = {name: VALUES[name] for name in ("tall", "wide")}
RATES = [1e-3, 5e-3, 1e-2, 2e-2, 2e-2]  # optax's schedule_free weighs by the largest rate so far
FLOAT32 = "it takes its decay in float32"


def _flat(values: dict) -> np.ndarray:
    return np.concatenate([np.asarray(value).ravel() for _, value in sorted(values.items())])


def _ours(twin, optim: Optim, values: dict, decay: float) -> np.ndarray:
    groups = {name: ParameterGroup("matrix", decay=decay) for name in values}
    grads = [{name: g[name] for name in values} for g in GRADS]
    return _flat(twin.optimized(optim, groups, values, grads, RATES))


def _torch(make: Callable, values: dict, transposed: bool = False) -> np.ndarray:
    """Updates by an optimizer of PyTorch. Its matrices are [out, in]."""
    turn = lambda x: x.T if transposed else x  # noqa: E731
    params = {name: torch.nn.Parameter(torch.from_numpy(turn(value).copy())) for name, value in values.items()}
    optimizer = make(params.values())
    for grad, rate in zip(GRADS, RATES, strict=True):
        for name, p in params.items():
            p.grad = torch.from_numpy(turn(grad[name]).copy())
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return _flat({name: turn(p.detach().numpy()) for name, p in params.items()})


def _rate(step):
    return jnp.asarray(RATES)[step]


def _optax(make: Callable, values: dict, averages: Callable | None = None) -> np.ndarray:
    transform, params = make(), {name: jnp.asarray(value) for name, value in values.items()}
    state = transform.init(params)
    for grad in GRADS:
        moves, state = transform.update({name: jnp.asarray(grad[name]) for name in values}, state, params)
        params = optax.apply_updates(params, moves)
    return _flat(averages(state, params) if averages else params)


def _schedule_free() -> optax.GradientTransformation:
    """Counts the wrapper's steps from 1 and the inner optimizer's from 0, as optax does."""
    inner = optax.adamw(_rate, b1=0.0, b2=0.99, eps=1e-3, weight_decay=0.3)
    return optax.contrib.schedule_free(inner, lambda step: _rate(step - 1), b1=0.8)


def _orthogonal(shape: tuple[int, int]) -> Formula:
    u = np.random.default_rng(0).standard_normal(shape)
    return Formula(
        f"optim.kind=muon, orthogonalisation of {shape[0]} x {shape[1]}",
        "optax, orthogonalize_via_newton_schulz",
        lambda twin: twin.orthogonal(Optim(kind="muon"), u),
        lambda: orthogonalize_via_newton_schulz(jnp.asarray(u), jnp.asarray([3.4445, -4.7750, 2.0315]), eps=1e-7),
    )


def _muon(scale: str, theirs: str) -> list[Formula]:
    sides = ((8, 32), (32, 8), (16, 16))
    whole = Formula(
        f"optim.muon_scale={scale}, whole updates",
        "torch.optim.Muon",
        lambda twin: _ours(twin, Optim(kind="muon", muon_scale=scale, momentum=0.95), MATRICES, 0.3),
        lambda: _torch(
            lambda p: torch.optim.Muon(p, momentum=0.95, weight_decay=0.3, adjust_lr_fn=theirs), MATRICES, True
        ),
        tolerance=3e-3,
        why="it iterates in bfloat16",
    )
    factors = Formula(
        f"optim.muon_scale={scale}",
        "torch.optim.Muon, adjust_lr_fn",
        lambda twin: [twin.MUON_SCALES[scale](d_in, d_out) for d_in, d_out in sides],
        lambda: [_adjust_lr(1.0, theirs, torch.Size((d_out, d_in))) for d_in, d_out in sides],
    )
    return [factors, whole]


ADAMW = Optim(betas=(0.8, 0.99), eps=1e-3)
FORMULAS = [
    Formula(
        "optim.kind=adamw",
        "torch.optim.AdamW",
        lambda twin: _ours(twin, ADAMW, VALUES, 0.3),
        lambda: _torch(lambda p: torch.optim.AdamW(p, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.3), VALUES),
    ),
    Formula(
        "optim.kind=adamw, another one",
        "optax.adamw",
        lambda twin: _ours(twin, ADAMW, VALUES, 0.3),
        lambda: _optax(lambda: optax.adamw(_rate, 0.8, 0.99, 1e-3, weight_decay=0.3), VALUES),
    ),
    Formula(
        "optim.kind=sgd",
        "torch.optim.SGD",
        lambda twin: _ours(twin, Optim(kind="sgd", momentum=0.8), VALUES, 0.0),
        lambda: _torch(lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.8, nesterov=True), VALUES),
    ),
    Formula(
        "optim.kind=lion",
        "optax.lion",
        lambda twin: _ours(twin, Optim(kind="lion", betas=(0.7, 0.95)), VALUES, 0.3),
        lambda: _optax(lambda: optax.lion(_rate, 0.7, 0.95, weight_decay=0.3), VALUES),
    ),
    Formula(  # its rate is min(lr, t^-0.5), and its epsilon is elsewhere: neither shows here
        "optim.kind=adafactor",
        "torch.optim.Adafactor",
        lambda twin: _ours(twin, Optim(kind="adafactor"), VALUES, 0.3),
        lambda: _torch(lambda p: torch.optim.Adafactor(p, eps=(1e-30, 1e-3), d=1.0, weight_decay=0.3), VALUES),
    ),
    Formula(  # it factors the two longest sides of an expert, not the last two
        "optim.kind=adafactor, another one",
        "optax.adafactor",
        lambda twin: _ours(twin, Optim(kind="adafactor"), NO_EXPERTS, 0.0),
        lambda: _optax(lambda: optax.adafactor(_rate, min_dim_size_to_factor=1), NO_EXPERTS),
        tolerance=1e-7,
        why=FLOAT32,
    ),
    Formula(
        "optim.kind=schedule_free",
        "optax.contrib.schedule_free",
        lambda twin: _ours(twin, Optim(kind="schedule_free", betas=(0.8, 0.99), eps=1e-3), VALUES, 0.3),
        lambda: _optax(_schedule_free, VALUES, optax.contrib.schedule_free_eval_params),
    ),
    _orthogonal((8, 5)),
    _orthogonal((5, 8)),
    *_muon("rms", "match_rms_adamw"),
    *_muon("spectral", "original"),
]
