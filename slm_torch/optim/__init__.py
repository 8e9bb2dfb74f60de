"""Optimizers: one line a kind. Each is driven by the names, groups and learning rates that slm_core decides."""

from slm_torch.optim.adafactor import Adafactor
from slm_torch.optim.adamw import AdamW
from slm_torch.optim.adamw8bit import AdamW8bit
from slm_torch.optim.lion import Lion
from slm_torch.optim.muon import Muon
from slm_torch.optim.schedule_free import ScheduleFree
from slm_torch.optim.sgd import SGD

OPTIMIZERS = {
    "adamw": AdamW,
    "adamw8bit": AdamW8bit,
    "sgd": SGD,
    "lion": Lion,
    "muon": Muon,
    "adafactor": Adafactor,
    "schedule_free": ScheduleFree,
}
