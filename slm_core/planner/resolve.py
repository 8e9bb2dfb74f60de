"""What the config leaves open, resolved on a device before anything is allocated there: one line of reason a choice.

Open are precision.compute "auto", memory.remat "auto", memory.loss_chunk unset and train.micro_batch_size 0. Where
nothing fits, the run stops here.
"""

import math
from typing import Any

from slm_core import planner
from slm_core.config import Config, Train
from slm_core.config.fields import flatten, with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hardware.compute import choose_compute
from slm_core.hardware.devices import Device
from slm_core.planner.report import TWINS, gigabytes, parts
from slm_core.planner.search import cheapest, enough, helpful, resolved, smallest

RESOLVED = ("precision.compute", "memory.remat", "memory.loss_chunk", "train.micro_batch_size")
"""Fields that may be resolved otherwise than the config says."""
SPARE = 0.05
"""Share of a device's free memory that is not planned with: what fragments, and what libraries take for themselves."""


def resolve_auto(
    config: Config, vocab_size: int, framework: str, device: Device, trains: bool
) -> tuple[Config, dict[str, str]]:
    """Returns the config with nothing left open, and {field: its value and why} of each choice.

    Args:
      framework: "torch" or "flax".
      trains: False: only evaluates, which takes so little that its memory is not planned.

    Raises:
      UserError: the device lacks what the config asks for, or no choice fits its memory.
    """
    config = with_values(config, {"run.device": "cpu" if device.platform == "cpu" else "cuda"})  # as it is planned
    limit = memory_limit(config, device)

    def fits(compute: str) -> bool:
        computing = with_values(config, {"precision.compute": compute})
        return not trains or _cheapest(computing, vocab_size, framework, limit) is not None

    compute, reason = choose_compute(config, vocab_size, device, fits)
    config = with_values(config, {"precision.compute": compute})
    choices = {"precision.compute": f"{compute} ({reason})"}
    if any(layer.attention.kernel == "fused" for layer in layer_specs(config.model)):
        choices["model.attention.kernel"] = f"fused ({device.fused})"
    if not trains:
        return resolved(config, micro_batch_size=config.train.micro_batch_size), choices
    found = _cheapest(config, vocab_size, framework, limit)
    if found is None:
        raise UserError(_refusal(config, vocab_size, framework, device, limit))
    return found, choices | _reasons(config, found, vocab_size, framework, limit)


def as_predicted(config: Config, *_: Any) -> tuple[Config, dict[str, str]]:
    """In the place of `resolve_auto`: returns the config as `planner.predict` takes it, whether it fits or not."""
    compute = config.precision.params if config.precision.compute == "auto" else config.precision.compute
    return with_values(resolved(config), {"precision.compute": compute}), {}


def memory_limit(config: Config, device: Device) -> float:
    """Returns the bytes that a run may take: memory.limit_gb, if so much is free."""
    wanted, free = config.memory.limit_gb * 1e9, (1 - SPARE) * device.free
    return min(wanted, free) if wanted else free


def differences(config: Config, other: Config) -> dict[str, Any]:
    """Returns {field: value in `other`} of what was resolved there otherwise than `config` says."""
    before, after = flatten(config), flatten(other)
    return {name: after[name] for name in RESOLVED if before[name] != after[name]}


def _cheapest(config: Config, vocab_size: int, framework: str, limit: float) -> Config | None:
    """As `search.cheapest`; the search is spared where the fastest settings fit, as they do nearly always."""
    fastest = resolved(config)
    if planner.predict(fastest, vocab_size, framework).total <= limit:
        return fastest
    return cheapest(config, vocab_size, framework, limit)


def _open(config: Config) -> dict[str, Any]:
    """Returns {field: what would take the least time} of what is open about memory."""
    memory, train = config.memory, config.train
    fastest = {
        "memory.remat": "none" if memory.remat == "auto" else None,
        "memory.loss_chunk": 0 if memory.loss_chunk is None else None,
        "train.micro_batch_size": train.batch_size if not train.micro_batch_size else None,
    }
    return {name: value for name, value in fastest.items() if value is not None}


def _reasons(config: Config, found: Config, vocab_size: int, framework: str, limit: float) -> dict[str, str]:
    """Returns {field: its value in `found` and why}, and under memory.limit_gb the memory that was planned."""
    values, lines = flatten(found), {}
    for name, fastest in _open(config).items():
        why = "fits"
        if values[name] != fastest:
            better = _next_size(found.train) if name == "train.micro_batch_size" else fastest
            total = planner.predict(with_values(found, {name: better}), vocab_size, framework).total
            why = f"{better} would take {total / 1e9:.2f} of {gigabytes(limit)}"
            why = why if total > limit else "the fastest of what fits"
        lines[name] = f"{values[name]} ({why})"
    prediction = planner.predict(found, vocab_size, framework)
    total = gigabytes(prediction.total).removesuffix(" GB")
    planned = f"{total} of {gigabytes(limit)} predicted: {parts(prediction)}"
    lines["memory.limit_gb"] = planned + planner.guesses(found)
    return lines


def _next_size(train: Train) -> int:
    """Returns the next larger micro-batch that divides the batch."""
    sizes = range(train.micro_batch_size + 1, train.batch_size + 1)
    return next(size for size in sizes if train.batch_size % size == 0)


def _refusal(config: Config, vocab_size: int, framework: str, device: Device, limit: float) -> str:
    """Returns why a run can't start: what it would take at the least, and the three changes that help most."""
    least = smallest(config, vocab_size, framework)
    prediction = planner.predict(least, vocab_size, framework)
    short = limit < config.memory.limit_gb * 1e9 or not config.memory.limit_gb
    free = f", and {gigabytes(device.free)} of {gigabytes(device.total)} are free" if short else ""
    return (
        f"memory.limit_gb={config.memory.limit_gb}: this run would take {gigabytes(prediction.total)}"
        f"{' at the least' if _open(config) else ''} in {TWINS[framework]} ({parts(prediction)})"
        f"{planner.guesses(least)}{free}: {_remedy(least, vocab_size, framework, limit, device)}"
    )


def _remedy(config: Config, vocab_size: int, framework: str, limit: float, device: Device) -> str:
    """Returns the three changes that save the most; where none is enough, also those that are so together."""
    changes = helpful(config, vocab_size, framework)[:3]
    words = [f"{change.text} ({gigabytes(change.total)})" for change in changes]
    total = planner.predict(config, vocab_size, framework).total
    if total <= (1 - SPARE) * device.free:
        words.append(f"memory.limit_gb={math.ceil(total / 1e8) / 10}, which is free")
    elif changes and changes[0].total > limit and (together := enough(config, vocab_size, framework, limit)):
        words.append(f"together {' and '.join(c.text for c in together)} ({gigabytes(together[-1].total)})")
    return f"set {', or '.join(words)}" if words else "use a smaller model"
