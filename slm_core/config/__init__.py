"""The schema: every field that a run can set, its type, default, meaning and the kinds that read it.

One frozen dataclass a section. Presets in `configs/` return `ml_collections.ConfigDict`s made from these classes by
`to_config_dict`; `from_config_dict` turns them back and `slm_core.config.validation.validate` checks them.
"""

import dataclasses
from dataclasses import dataclass

from slm_core.config.attention import Attention, Position
from slm_core.config.machine import DTYPES, Memory, Precision, Run
from slm_core.config.model import Mlp, Model, Norm
from slm_core.config.option import option
from slm_core.config.training import Data, Finetune, Optim, Train

__all__ = [
    "DTYPES", "Attention", "Config", "Data", "Finetune", "Memory", "Mlp", "Model", "Norm", "Optim", "Position",
    "Precision", "Run", "Train",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    seed: int = option(0, "seed of initial weights, data order, dropout and sampling", low=0, high=2**32 - 1)
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    optim: Optim = dataclasses.field(default_factory=Optim)
    finetune: Finetune = dataclasses.field(default_factory=Finetune)
    train: Train = dataclasses.field(default_factory=Train)
    precision: Precision = dataclasses.field(default_factory=Precision)
    memory: Memory = dataclasses.field(default_factory=Memory)
    run: Run = dataclasses.field(default_factory=Run)
