"""Resolves the fields that the config leaves open, on a device and before anything is allocated there.

Open are precision.compute "auto", memory.remat "auto", memory.loss_chunk unset and train.micro_batch_size 0. One
line of reason comes with each choice. If nothing fits, the run stops here.
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
from slm_core.planner import Twin
from slm_core.planner.report import TWINS, gigabytes, parts
from slm_core.planner.resident import compute_dtype, resident_memory
from slm_core.planner.search import cheapest, enough, helpful, resolved, smallest

RESOLVED = ("precision.compute", "memory.remat", "memory.loss_chunk", "train.micro_batch_size")
"""The fields that may be resolved to another value than the config's."""
DEEP = 32
"""Layers from which on a model that is much too large is refused before it is planned as a whole."""
SPARE = 0.05
"""Share of a device's free memory that is not planned with: for fragmentation, and for what libraries take."""


def resolve_auto(
    config: Config, vocab_size: int, twin: Twin, device: Device, trains: bool
) -> tuple[Config, dict[str, str]]:
    """Resolves every open field of a config.

    Args:
      trains: False: the run only evaluates, which takes so little memory that it is not planned.

    Returns:
      The resolved config, and {field: its value and the reason} of each choice.

    Raises:
      UserError: the device lacks what the config asks for, or no choice fits its memory.
    """
    config = with_values(config, {"run.device": "cpu" if device.platform == "cpu" else "cuda"})  # as it is planned
    limit = memory_limit(config, device)
    if trains:
        _refuse_deep(config, vocab_size, twin, limit)

    def fits(compute: str) -> bool:
        computing = with_values(config, {"precision.compute": compute})
        return not trains or _cheapest(computing, vocab_size, twin, limit) is not None

    compute, reason = choose_compute(config, vocab_size, device, fits)
    config = with_values(config, {"precision.compute": compute})
    choices = {"precision.compute": f"{compute} ({reason})"}
    if any(layer.attention.kernel == "fused" for layer in layer_specs(config.model)):
        choices["model.attention.kernel"] = f"fused ({device.fused})"
    if not trains:
        return resolved(config, micro_batch_size=config.train.micro_batch_size), choices
    chosen = _cheapest(config, vocab_size, twin, limit)
    if chosen is None:
        raise UserError(_refusal(config, vocab_size, twin, device, limit))
    return chosen, choices | _reasons(config, chosen, vocab_size, twin, limit)


def _refuse_deep(config: Config, vocab_size: int, twin: Twin, limit: float) -> None:
    """Refuses a deep model by the weights of its first layers alone: to plan hundreds of huge layers takes minutes.

    Raises:
      UserError: those weights are larger than the limit.
    """
    first = with_values(config, {"model.n_layers": DEEP})
    if config.model.n_layers <= DEEP or (size := resident_memory(first, vocab_size, twin.declare).weights) <= limit:
        return
    raise UserError(
        f"memory.limit_gb={config.memory.limit_gb}: the weights of the first {DEEP} of model.n_layers="
        f"{config.model.n_layers} alone take {gigabytes(size)}: set a smaller model.d_model={config.model.d_model}, or"
        f" fewer layers"
    )


def as_predicted(config: Config, *_: Any) -> tuple[Config, dict[str, str]]:
    """Takes the place of `resolve_auto` for measuring: resolves as `planner.predict` counts, whether it fits or not."""
    return with_values(resolved(config), {"precision.compute": compute_dtype(config.precision)}), {}


def memory_limit(config: Config, device: Device) -> float:
    """Returns the bytes that a run may take: memory.limit_gb, or less if less is free."""
    limit, free = config.memory.limit_gb * 1e9, (1 - SPARE) * device.free
    return min(limit, free) if limit else free


def differences(config: Config, other: Config) -> dict[str, Any]:
    """Returns {field: value in `other`} of the fields that were resolved there to another value than in `config`."""
    before, after = flatten(config), flatten(other)
    return {name: after[name] for name in RESOLVED if before[name] != after[name]}


def _cheapest(config: Config, vocab_size: int, twin: Twin, limit: float) -> Config | None:
    """Returns the settings of `search.cheapest`. Nearly always the fastest ones fit, and no search is needed."""
    fastest = resolved(config)
    if planner.predict(fastest, vocab_size, twin).total <= limit:
        return fastest
    return cheapest(config, vocab_size, twin, limit)


def _open(config: Config) -> dict[str, Any]:
    """Returns {field: the value that would take the least time} of the open fields about memory."""
    memory, train = config.memory, config.train
    fastest = {
        "memory.remat": "none" if memory.remat == "auto" else None,
        "memory.loss_chunk": 0 if memory.loss_chunk is None else None,
        "train.micro_batch_size": train.batch_size if not train.micro_batch_size else None,
    }
    return {name: value for name, value in fastest.items() if value is not None}


def _reasons(config: Config, chosen: Config, vocab_size: int, twin: Twin, limit: float) -> dict[str, str]:
    """Returns {field: its value in `chosen` and why}, and under memory.limit_gb the memory that was planned."""
    values, lines = flatten(chosen), {}
    for name, fastest in _open(config).items():
        why = "fits"
        if values[name] != fastest:
            better = _next_size(chosen.train) if name == "train.micro_batch_size" else fastest
            total = planner.predict(with_values(chosen, {name: better}), vocab_size, twin).total
            why = f"{better} would take {total / 1e9:.2f} of {gigabytes(limit)}"
            why = why if total > limit else "the fastest of what fits"
        lines[name] = f"{values[name]} ({why})"
    prediction = planner.predict(chosen, vocab_size, twin)
    total = gigabytes(prediction.total).removesuffix(" GB")
    planned = f"{total} of {gigabytes(limit)} predicted: {parts(prediction)}"
    lines["memory.limit_gb"] = planned + planner.assumptions(chosen)
    return lines


def _next_size(train: Train) -> int:
    """Returns the next larger micro-batch that divides the batch."""
    sizes = range(train.micro_batch_size + 1, train.batch_size + 1)
    return next(size for size in sizes if train.batch_size % size == 0)


def _refusal(config: Config, vocab_size: int, twin: Twin, device: Device, limit: float) -> str:
    """Makes the error of a run that cannot start: its least memory, and the three changes that help most."""
    least = smallest(config, vocab_size, twin)
    prediction = planner.predict(least, vocab_size, twin)
    short = limit < config.memory.limit_gb * 1e9 or not config.memory.limit_gb
    free = f", and {gigabytes(device.free)} of {gigabytes(device.total)} are free" if short else ""
    return (
        f"memory.limit_gb={config.memory.limit_gb}: this run would take {gigabytes(prediction.total)}"
        f"{' at the least' if _open(config) else ''} in {TWINS[twin.framework]} ({parts(prediction)})"
        f"{planner.assumptions(least)}{free}: {_remedy(least, vocab_size, twin, limit, device)}"
    )


def _remedy(config: Config, vocab_size: int, twin: Twin, limit: float, device: Device) -> str:
    """Returns the three changes that save the most. If none is enough, also those that are enough together."""
    changes = helpful(config, vocab_size, twin)[:3]
    options = [f"{change.text} ({gigabytes(change.total)})" for change in changes]
    total = planner.predict(config, vocab_size, twin).total
    if total <= (1 - SPARE) * device.free:
        options.append(f"memory.limit_gb={math.ceil(total / 1e8) / 10}, which is free")
    elif changes and changes[0].total > limit and (together := enough(config, vocab_size, twin, limit)):
        options.append(f"together {' and '.join(c.text for c in together)} ({gigabytes(together[-1].total)})")
    return f"set {', or '.join(options)}" if options else "use a smaller model"
