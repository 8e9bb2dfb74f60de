"""What the optimizers keep of each parameter: the same in both twins."""

from collections.abc import Iterator, Mapping

from slm_core.budget.parameters import Parameter
from slm_core.config import Optim

KINDS = ("adamw", "adamw8bit", "sgd", "lion", "muon", "adafactor", "schedule_free")
"""Those that are counted here and in what their updates need besides."""


def optimizer_state(optim: Optim, trained: Mapping[str, Parameter], stored: int) -> Iterator[tuple[str, int]]:
    """Yields (name, bytes) of the state that an optimizer keeps of each parameter."""
    for name, p in trained.items():
        size = p.size * stored
        if optim.kind in ("sgd", "lion") or optim.kind == "muon" and p.role == "matrix" and len(p.shape) >= 2:
            yield name, size
        elif optim.kind == "adafactor":
            factored = len(p.shape) >= 2
            yield name, (p.size // p.shape[-1] + p.size // p.shape[-2]) * stored if factored else size
        elif optim.kind == "adamw8bit" and p.size >= optim.quantised_from:
            yield name, 2 * (p.size + -(-p.size // optim.quantised_block) * stored)
        else:
            yield name, 2 * size
