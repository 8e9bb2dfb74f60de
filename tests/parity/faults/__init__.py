"""Mistakes that a porter makes, each in one twin alone: the suite must catch it, and the bisector must name it."""

from faults import (
    attention,
    decoding,
    documents,
    finetune,
    kernels,
    mixers,
    mlps,
    model,
    norms,
    optimizers,
    positions,
    stacks,
    training,
)
from faults.fault import Fault
from faults.pairs import CONFIGS
from faults.rules import OFF, RULES, SIZES, SPLIT

SECTIONS = {
    "attention": attention.FAULTS,
    "mixers": mixers.FAULTS,
    "kernels": kernels.FAULTS,
    "positions": positions.FAULTS,
    "norms": norms.FAULTS,
    "mlps": mlps.FAULTS,
    "model": model.FAULTS,
    "stacks": stacks.FAULTS,
    "training": training.FAULTS,
    "optimizers": optimizers.FAULTS,
    "finetune": finetune.FAULTS,
    "decoding": decoding.FAULTS,
    "documents": documents.FAULTS,
}
FAULTS = {name: fault for faults in SECTIONS.values() for name, fault in faults.items()}
"""{what is wrong: the fault}."""

__all__ = ["CONFIGS", "FAULTS", "Fault", "OFF", "RULES", "SECTIONS", "SIZES", "SPLIT"]
