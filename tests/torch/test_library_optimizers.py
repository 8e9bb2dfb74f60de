"""PyTorch's own optimizers beside the specification, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup
from slm_torch.optim import OPTIMIZERS
from tests.conformance.optimizer_cases import CASES, GROUPS, LEARNING_RATES, case
from tests.conformance.twins import torch as twin
from tests.gates import require
from tests.reference import optimizers as reference

LIBRARY = {
    "adamw": (
        Optim(betas=(0.8, 0.99), eps=1e-3),
        lambda params: torch.optim.AdamW(params, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.3),
        0.3,
    ),
    "sgd": (
        Optim(kind="sgd", momentum=0.8),
        lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.8, nesterov=True),
        0.0,
    ),
    "adafactor": (  # its rate is min(lr, t^-0.5), and its epsilon is elsewhere: neither shows here
        Optim(kind="adafactor", clip_rms=1.0),
        lambda params: torch.optim.Adafactor(params, eps=(1e-30, 1e-3), d=1.0, weight_decay=0.3),
        0.3,
    ),
}
"""{kind: (our config, PyTorch's optimizer, weight decay)} of equal functions."""


@pytest.mark.parametrize("kind", LIBRARY)
def test_the_optimizer_equals_pytorch(kind):
    optim, library, decay = LIBRARY[kind]
    values, grads = case()
    groups = {name: ParameterGroup("matrix", decay=decay) for name in values}
    params_after = twin.optimized(optim, groups, values, grads, LEARNING_RATES)
    params = twin.parameters(values)
    optimizer = library(params.values())

    def update(lr):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    twin.updates(params, grads, LEARNING_RATES, update)
    for name, p in params.items():
        np.testing.assert_allclose(params_after[name], p.detach().numpy(), rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("scale", ["rms", "spectral"])
def test_muon_is_close_to_pytorchs(scale):
    """PyTorch iterates in bfloat16, and its matrices are [out, in]."""
    values, grads = case()
    values, grads = {"wide": values["wide"]}, [{"wide": g["wide"]} for g in grads]
    optim = Optim(kind="muon", muon_scale=scale)
    params_after = twin.optimized(optim, {"wide": ParameterGroup("matrix", decay=0.3)}, values, grads, LEARNING_RATES)
    transposed = {"wide": torch.nn.Parameter(torch.from_numpy(values["wide"].T.copy()))}
    name = {"rms": "match_rms_adamw", "spectral": "original"}[scale]
    muon = torch.optim.Muon(transposed.values(), momentum=0.95, weight_decay=0.3, adjust_lr_fn=name)

    def update(lr):
        muon.param_groups[0]["lr"] = lr
        muon.step()

    twin.updates(transposed, [{"wide": g["wide"].T} for g in grads], LEARNING_RATES, update)
    moved, expected = params_after["wide"] - values["wide"], transposed["wide"].detach().numpy().T - values["wide"]
    assert np.linalg.norm(moved - expected) < 0.03 * np.linalg.norm(expected)


class Measured(NamedTuple):
    """Compares a specification with PyTorch's own optimizer.

    Args:
      library: from the config's section and the parameter groups; None: PyTorch has none.
      equal: whether it is the specification in float64.
      because: why not.
    """

    optim: Optim
    library: Callable[[Optim, list[dict]], torch.optim.Optimizer] | None
    equal: bool
    because: str = ""


def library_muon(optim, groups):
    return torch.optim.Muon(groups, momentum=optim.momentum, adjust_lr_fn="match_rms_adamw")


MEASURED = {
    "adamw": Measured(
        CASES["adamw"],
        lambda o, groups: torch.optim.AdamW(groups, betas=o.betas, eps=o.eps, fused=True),
        True,
    ),
    "sgd": Measured(
        CASES["sgd"],
        lambda o, groups: torch.optim.SGD(groups, lr=1.0, momentum=o.momentum, nesterov=o.nesterov),
        False,
        "weight decay goes into the gradient, where the momentum keeps it",
    ),
    "lion": Measured(Optim(kind="lion"), None, False, "no Lion"),
    "muon": Measured(Optim(kind="muon"), library_muon, False, "iterates in bfloat16; [out, in]; no experts"),
    "adafactor": Measured(
        Optim(kind="adafactor"),
        lambda o, groups: torch.optim.Adafactor(groups, beta2_decay=-o.decay_power, eps=(1e-30, o.min_rms), d=1.0),
        False,
        "the rate is at most 1 / sqrt(t), and 1e-30 is a bound and not added",
    ),
    "schedule_free": Measured(Optim(kind="schedule_free"), None, False, "no schedule-free optimizer"),
    "adamw8bit": Measured(Optim(kind="adamw8bit"), None, False, "no 8-bit moments"),
}
HIGH = [*LEARNING_RATES[:-1], 0.9]  # above 1 / sqrt(5)


def test_every_optimizer_was_measured():
    measured_kinds = set(MEASURED)
    where = "a line of MEASURED in tests/torch/test_library_optimizers.py"
    require({kind: where for kind in set(OPTIMIZERS) - measured_kinds})
    assert measured_kinds <= set(OPTIMIZERS)
    assert all(measured.equal or measured.because for measured in MEASURED.values())


@pytest.mark.parametrize("kind", [kind for kind, measured in MEASURED.items() if measured.library])
def test_which_optimizers_of_pytorch_equal_the_specification(kind):
    """Equal to 1e-12 or not, with multipliers, decay and a table of rates: what changes with PyTorch is seen here."""
    optim, library, equal, _ = MEASURED[kind]
    values, grads = case()
    if kind == "muon":
        values = {name: values[name] for name in ("tall", "wide")}  # its matrices have two sides
        grads = [{name: g[name] for name in values} for g in grads]
    params = twin.parameters(values)
    optimizer = library(optim, [
        {"params": [p], "lr_multiplier": group.lr_multiplier, "weight_decay": group.decay / group.lr_multiplier}
        for p, group in ((p, GROUPS[name]) for name, p in params.items())
    ])  # fmt: skip

    def update(lr):
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_multiplier"]
        optimizer.step()

    twin.updates(params, grads, HIGH, update)
    formula = getattr(reference, kind)
    expected = {n: formula(optim, GROUPS[n], p, [g[n] for g in grads], HIGH) for n, p in values.items()}
    params_after = {name: p.detach().numpy() for name, p in params.items()}
    error = max(np.linalg.norm(params_after[name] - e) / np.linalg.norm(e) for name, e in expected.items())
    assert (error < 1e-12) == equal
