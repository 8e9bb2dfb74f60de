"""Optimizers: one line per kind, an optax transformation of the config's section and of the parameters' groups.

A line `"flax:NAME": lambda optim, groups: scheduled(optax.adabelief(1.0))` adds any optax chain to this twin alone.
`optim.kind=flax:NAME` chooses it, and the proof refuses it. Its own learning rate is 1: `scheduled` multiplies by the
schedule's. Under memory.remat such a chain sees each layer of a stack by itself.
"""

from collections.abc import Callable

from slm_core.config import Optim
from slm_core.model.one_twin import check_kind
from slm_flax.optim import adafactor, adamw, adamw8bit, lion, muon, schedule_free, sgd
from slm_flax.optim.base import Groups, Optimizer, OptimState, Transformation
from slm_flax.optim.base import scheduled as scheduled
from slm_flax.params import Params

OPTIMIZERS: dict[str, Callable[[Optim, Groups], Transformation]] = {
    "adamw": adamw.adamw,
    "adamw8bit": adamw8bit.adamw8bit,
    "sgd": sgd.sgd,
    "lion": lion.lion,
    "muon": muon.muon,
    "adafactor": adafactor.adafactor,
    "schedule_free": schedule_free.schedule_free,
}

AVERAGED: dict[str, Callable[[Optim, Params, OptimState], Params]] = {"schedule_free": schedule_free.averaged}
"""{kind that evaluates and decodes with averages: function of (optim, trained parameters, state) that gives them}."""


def make(optim: Optim, groups: Groups) -> Optimizer:
    """Makes the optimizer that a config asks for.

    Raises:
      UserError: this twin has no optimizer of that kind.
    """
    check_kind(optim.kind, "flax", OPTIMIZERS)
    return Optimizer(OPTIMIZERS[optim.kind](optim, groups))
