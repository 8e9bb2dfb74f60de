"""PyTorch's own optimizers beside the specification, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from slm_core.config import Optim
from slm_torch.optim import OPTIMIZERS
from tests.conformance.optimizer_cases import CASES, GROUPS, LEARNING_RATES, case
from tests.conformance.twins import torch as twin
from tests.gates import require
from tests.reference import optimizers as reference


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
