"""What the config leaves open, settled on a device before anything is allocated there: one line of reason a choice.

Open are precision.compute "auto", memory.remat "auto", memory.loss_chunk unset and train.micro_batch_size 0. Where
nothing fits, the run stops here.
"""

import dataclasses
from typing import Any

from slm_core import budget
from slm_core.budget import Prediction
from slm_core.budget.report import TWINS, gigabytes
from slm_core.budget.search import cheapest, helpful, settled, smallest
from slm_core.config import Config, Train
from slm_core.config_dict import flatten, with_values
from slm_core.errors import UserError
from slm_core.notice import say_once
from slm_core.pattern import layer_models
from slm_core.platform import Device
from slm_core.precision import choose_compute

SETTLED = (
    "precision.compute", "memory.remat", "memory.loss_chunk", "train.micro_batch_size",
    "model.attention.kernel", "model.pattern",
)  # fmt: skip
"""Fields that may be settled otherwise than the config says."""


def settle(
    config: Config, vocab_size: int, framework: str, device: Device, trains: bool
) -> tuple[Config, dict[str, str]]:
    """Returns the config with nothing left open, and {field: its value and why} of each choice.

    Args:
      framework: "torch" or "flax".
      trains: False: only evaluates, which takes so little that its memory is not planned.

    Raises:
      UserError: the device lacks what the config asks for, or no choice fits its memory.
    """
    config = _with_kernel(config, device)
    limit = memory_limit(config, device)

    def fits(compute: str) -> bool:
        computing = with_values(config, {"precision.compute": compute})
        return not trains or _cheapest(computing, vocab_size, framework, limit) is not None

    compute, reason = choose_compute(config, vocab_size, device, fits)
    config = with_values(config, {"precision.compute": compute})
    choices = {"precision.compute": f"{compute} ({reason})"}
    if not trains:
        return settled(config, micro_batch_size=config.train.micro_batch_size), choices
    found = _cheapest(config, vocab_size, framework, limit)
    if found is None:
        raise UserError(_refusal(config, vocab_size, framework, device, limit))
    return found, choices | _reasons(config, found, vocab_size, framework, limit)


def as_predicted(config: Config, *_: Any) -> tuple[Config, dict[str, str]]:
    """In the place of `settle`, returns the config as `budget.predict` takes it, whatever fits: for measuring."""
    compute = config.precision.params if config.precision.compute == "auto" else config.precision.compute
    return with_values(settled(config), {"precision.compute": compute}), {}


def memory_limit(config: Config, device: Device) -> float:
    """Returns the bytes that a run may take: memory.budget_gb, if so much is free."""
    wanted = config.memory.budget_gb * 1e9
    return min(wanted, device.free) if wanted else device.free


def differences(config: Config, other: Config) -> dict[str, Any]:
    """Returns {field: value in `other`} of what was settled there otherwise than `config` says."""
    before, after = flatten(config), flatten(other)
    return {name: after[name] for name in SETTLED if before[name] != after[name]}


def _with_kernel(config: Config, device: Device) -> Config:
    """Returns the config with the kernel that really computes where the device has none for "fused"."""
    if device.fused or all(layer.attention.kernel != "fused" for layer in layer_models(config.model)):
        return config
    say_once(
        f"model.attention.kernel=fused: the framework has no such kernel for {device.name} ({device.version}): flash "
        "computes attention"
    )
    kernel, pattern = config.model.attention.kernel, config.model.pattern
    return with_values(
        config,
        {
            "model.attention.kernel": "flash" if kernel == "fused" else kernel,
            "model.pattern": pattern.replace("attention.kernel=fused", "attention.kernel=flash"),
        },
    )


def _cheapest(config: Config, vocab_size: int, framework: str, limit: float) -> Config | None:
    """As `search.cheapest`; the search is spared where the fastest settings fit, as they do nearly always."""
    fastest = settled(config)
    if budget.predict(fastest, vocab_size, framework).total <= limit:
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
    """Returns {field: its value in `found` and why}, and under memory.budget_gb the memory that was planned."""
    values, lines = flatten(found), {}
    for name, fastest in _open(config).items():
        why = "fits"
        if values[name] != fastest:
            better = _next_size(found.train) if name == "train.micro_batch_size" else fastest
            total = budget.predict(with_values(found, {name: better}), vocab_size, framework).total
            why = f"{better} would take {total / 1e9:.2f} of {gigabytes(limit)}"
            why = why if total > limit else "the fastest of what fits"
        lines[name] = f"{values[name]} ({why})"
    prediction = budget.predict(found, vocab_size, framework)
    planned = f"{prediction.total / 1e9:.2f} of {gigabytes(limit)} predicted: {parts(prediction)}"
    lines["memory.budget_gb"] = planned + budget.guesses(found)
    return lines


def _next_size(train: Train) -> int:
    """Returns the next larger micro-batch that divides the batch."""
    sizes = range(train.micro_batch_size + 1, train.batch_size + 1)
    return next(size for size in sizes if train.batch_size % size == 0)


def parts(prediction: Prediction) -> str:
    """Returns "weights 0.50, gradients 0.50, ..." in GB."""
    return ", ".join(f"{name} {size / 1e9:.2f}" for name, size in dataclasses.asdict(prediction).items())


def _refusal(config: Config, vocab_size: int, framework: str, device: Device, limit: float) -> str:
    """Returns why a run can't start: what it would take at the least, and the three changes that help most."""
    least = smallest(config, vocab_size, framework)
    prediction = budget.predict(least, vocab_size, framework)
    changes = [f"{c.text} ({gigabytes(c.total)})" for c in helpful(least, vocab_size, framework)[:3]]
    free = f", and {gigabytes(device.free)} of {gigabytes(device.total)} are free" if limit == device.free else ""
    return (
        f"memory.budget_gb={config.memory.budget_gb}: this run would take {gigabytes(prediction.total)}"
        f"{' at the least' if _open(config) else ''} in {TWINS[framework]} ({parts(prediction)})"
        f"{budget.guesses(least)}{free}: " + (f"set {', or '.join(changes)}" if changes else "use a smaller model")
    )
