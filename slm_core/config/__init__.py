"""The schema: every field that a run can set, its type, default, meaning and the kinds that read it.

There is one frozen dataclass per section. Presets in `configs/` make these classes, and return them as an
`ml_collections.ConfigDict` by `to_config_dict`. `from_config_dict` turns it back, and
`slm_core.config.validation.validate` checks the result.
"""

import dataclasses
from dataclasses import dataclass

from slm_core.config.attention import Attention, Position
from slm_core.config.bounds import SEED
from slm_core.config.machine import DTYPES, Memory, Precision, Run
from slm_core.config.mixer import Mixer
from slm_core.config.model import Mlp, Model, Norm
from slm_core.config.option import option
from slm_core.config.training import Data, Finetune, Optim, Train

__all__ = [
    "DTYPES", "Attention", "Config", "Data", "Finetune", "Memory", "Mixer", "Mlp", "Model", "Norm", "Optim",
    "Position", "Precision", "Run", "Train",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that a run can set.

    One section per field, and the `seed`. A Config is a value: it is frozen, compares by its fields, and
    `slm_core.config.fields.with_values` makes a changed copy. What is not set has its default; `None` and `auto` mean
    that the value follows from other fields or from the machine.
    """

    seed: int = option(0, "seed of initial weights, data order, dropout and sampling", low=0, high=SEED)
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    optim: Optim = dataclasses.field(default_factory=Optim)
    finetune: Finetune = dataclasses.field(default_factory=Finetune)
    train: Train = dataclasses.field(default_factory=Train)
    precision: Precision = dataclasses.field(default_factory=Precision)
    memory: Memory = dataclasses.field(default_factory=Memory)
    run: Run = dataclasses.field(default_factory=Run)
