"""Optimizers: one line per kind, a `torch.optim.Optimizer` of the config's section, the parameters and their groups.

A line `"torch:NAME": lambda optim, params, groups: torch.optim.NAdam(param_groups(params, groups))` adds any PyTorch
optimizer to this twin alone. `optim.kind=torch:NAME` chooses it, and the proof refuses it. The schedule sets its
learning rate.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from slm_core.config import Optim
from slm_core.model.one_twin import check_kind
from slm_torch.optim import adafactor, adamw, adamw8bit, lion, muon, schedule_free, sgd
from slm_torch.optim.base import Groups, Params
from slm_torch.optim.base import param_groups as param_groups

OPTIMIZERS: dict[str, Callable[[Optim, Params, Groups], torch.optim.Optimizer]] = {
    "adamw": adamw.AdamW,
    "adamw8bit": adamw8bit.AdamW8bit,
    "sgd": sgd.SGD,
    "lion": lion.Lion,
    "muon": muon.Muon,
    "adafactor": adafactor.Adafactor,
    "schedule_free": schedule_free.ScheduleFree,
}

AVERAGED: dict[str, Callable[[Optim, Params, Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "schedule_free": schedule_free.averaged
}
"""{kind that evaluates and decodes with averages: function of (optim, trained parameters, state) that gives them}."""


def make(optim: Optim, params: Params, groups: Groups) -> torch.optim.Optimizer:
    """Makes the optimizer that a config asks for.

    Raises:
      UserError: this twin has no optimizer of that kind.
    """
    check_kind(optim.kind, "torch", OPTIMIZERS)
    return OPTIMIZERS[optim.kind](optim, params, groups)
