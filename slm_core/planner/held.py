"""What an update holds from its beginning to its end, the same in both twins: weights, gradients, optimizer state."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from slm_core.config import Config, Optim
from slm_core.planner.parameters import Parameter, parameters

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
SLICE = 2**20
"""Values that 8-bit AdamW works on at once: of each twin's `optim.adamw8bit`."""
KINDS = ("adamw", "adamw8bit", "sgd", "lion", "muon", "adafactor", "schedule_free")
"""Those that are counted here and in what their updates need besides."""


class Held(NamedTuple):
    """Parameters and bytes.

    Args:
      shapes: {canonical name: parameter}.
      sizes: {canonical name: bytes}.
      trained: those of `shapes` that the optimizer trains.
      weights, optimizer: bytes.
      gradients: bytes of what gets one: a mixture's routing bias, too.
      stored, compute, wide: bytes of a parameter's value, of an activation's, and of what is float32 or wider.
    """

    shapes: dict[str, Parameter]
    sizes: dict[str, int]
    trained: dict[str, Parameter]
    weights: int
    gradients: int
    optimizer: int
    stored: int
    compute: int
    wide: int


def held(config: Config, vocab_size: int) -> Held:
    shapes, params, compute = parameters(config, vocab_size), config.precision.params, config.precision.compute
    stored, compute_bytes = BYTES[params], BYTES[params if compute == "auto" else compute]
    sizes = {name: p.size * (BYTES[p.dtype] if p.dtype else stored) for name, p in shapes.items()}
    trained = {name: p for name, p in shapes.items() if p.role not in ("frozen", "balance")}
    gradients = sum(sizes[name] for name, p in shapes.items() if p.role != "frozen")
    optimizer = sum(size for _, size in optimizer_state(config.optim, trained, stored))
    return Held(
        shapes, sizes, trained, sum(sizes.values()), gradients, optimizer, stored, compute_bytes, max(4, compute_bytes)
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
