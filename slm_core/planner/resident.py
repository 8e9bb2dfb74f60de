"""Counts the resident memory: what stays from the beginning of an update to its end, the same in both twins."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from slm_core.config import Config, Optim, Precision
from slm_core.planner.declarations import Declare, Parameter, parameters

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
SLICE = 2**20
"""Values that 8-bit AdamW works on at once: `SLICE` of each twin's `optim.adamw8bit`."""
KINDS = ("adamw", "adamw8bit", "sgd", "lion", "muon", "adafactor", "schedule_free")
"""The optimizers whose state is counted here, and whose updates `torch_step` and `flax_step` count."""


class Resident(NamedTuple):
    """The parameters and their bytes.

    Args:
      parameters: {canonical name: parameter}.
      sizes: {canonical name: bytes}.
      trained: those of `parameters` that the optimizer trains.
      weights, optimizer: bytes.
      gradients: bytes of all gradients, that of a mixture's routing bias among them.
      stored, compute, wide: bytes of one value of a parameter, of an activation, and of what is float32 or wider.
    """

    parameters: Mapping[str, Parameter]
    sizes: dict[str, int]
    trained: dict[str, Parameter]
    weights: int
    gradients: int
    optimizer: int
    stored: int
    compute: int
    wide: int


def compute_dtype(precision: Precision) -> str:
    """Returns the dtype that a run computes in; the planner takes "auto" for the dtype of the parameters."""
    return precision.params if precision.compute == "auto" else precision.compute


def resident_memory(config: Config, vocab_size: int, declare: Declare) -> Resident:
    """Counts the resident memory of a config."""
    declared, precision = parameters(config, vocab_size, declare), config.precision
    stored, activation = BYTES[precision.params], BYTES[compute_dtype(precision)]
    sizes = {name: p.size * (BYTES[p.dtype] if p.dtype else stored) for name, p in declared.items()}
    trained = {name: p for name, p in declared.items() if p.role not in ("frozen", "balance")}
    return Resident(
        parameters=declared,
        sizes=sizes,
        trained=trained,
        weights=sum(sizes.values()),
        gradients=sum(sizes[name] for name, p in declared.items() if p.role != "frozen"),
        optimizer=sum(size for _, size in optimizer_state(config.optim, trained, stored)),
        stored=stored,
        compute=activation,
        wide=max(BYTES["float32"], activation),
    )


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
