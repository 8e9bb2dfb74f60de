"""Which settings fit a limit: those that cost the least time, and the changes that save the most memory."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.config.validation import drop_unread, validate
from slm_core.errors import UserError
from slm_core.planner import Prediction, predict

CHUNK = 1024
"""Tokens a chunk of the loss where the planner chooses: enough rows to fill a device, few enough to be small."""

ENOUGH = 2048
"""Tokens in memory at once that keep a small card busy: above them a larger micro-batch is not worth computing more."""


def resolved(config: Config, **fields: Any) -> Config:
    """Returns the config with what is open replaced by what `predict` takes it for, or by `fields` (remat, loss_chunk,
    micro_batch_size)."""
    memory, train = config.memory, config.train
    values = {
        "memory.remat": "none" if memory.remat == "auto" else memory.remat,
        "memory.loss_chunk": memory.loss_chunk or 0,
        "train.micro_batch_size": train.micro_batch_size or train.batch_size,
    }
    sections = {
        "remat": "memory.remat",
        "loss_chunk": "memory.loss_chunk",
        "micro_batch_size": "train.micro_batch_size",
    }
    return with_values(config, values | {sections[field]: value for field, value in fields.items()})


def cheapest(config: Config, vocab_size: int, framework: str, limit: float) -> Config | None:
    """Returns the config with its open fields set to what takes the least time of all that fits, or None.

    Open are memory.remat "auto", memory.loss_chunk unset and train.micro_batch_size 0. The least is computed again with
    which ENOUGH tokens fit at once, and then as many as fit; where nothing lets so many fit, what lets the most fit.

    Args:
      limit: bytes.
    """
    found = []
    for work, setting in _settings(config, vocab_size):
        micro = _largest(config, setting, vocab_size, framework, limit)
        if micro:
            tokens = min(micro * config.data.seq_len, ENOUGH)
            found.append((-tokens, work, -micro, resolved(config, **setting, micro_batch_size=micro)))
    return min(found, key=lambda item: item[:3])[3] if found else None


def largest_micro_batch(config: Config, vocab_size: int, framework: str, limit: float) -> int:
    """Returns how many sequences fit at once, whatever train.micro_batch_size says; 0: not even one.

    What else is open is chosen to let the most fit.
    """
    free = with_values(config, {"train.micro_batch_size": 0})
    return max(_largest(free, setting, vocab_size, framework, limit) for _, setting in _settings(config, vocab_size))


def smallest(config: Config, vocab_size: int, framework: str) -> Config:
    """Returns the config with its open fields set to what takes the least memory."""
    micro = _micro_batches(config)[-1]
    found = (resolved(config, **setting, micro_batch_size=micro) for _, setting in _settings(config, vocab_size))
    return min(found, key=lambda each: predict(each, vocab_size, framework).total)


def _settings(config: Config, vocab_size: int) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yields what remat and loss_chunk may become, each with its work: what it computes for a token, in FLOP."""
    remats = ("none", "attention", "block", "full") if config.memory.remat == "auto" else (config.memory.remat,)
    chunks = (0, CHUNK) if config.memory.loss_chunk is None else (config.memory.loss_chunk,)
    for remat, chunk in itertools.product(remats, chunks):
        yield _work(config, vocab_size, remat, chunk), {"remat": remat, "loss_chunk": chunk}


def _work(config: Config, vocab_size: int, remat: str, chunk: int) -> float:
    """Returns what a token's forward pass, backward pass (twice that) and recomputation cost, in FLOP."""
    from slm_core.planner.parameters import matrix_sizes

    model, length = config.model, config.data.seq_len
    seen = [min(length, layer.attention.window or length) for layer in layer_specs(model)]
    attention = sum(4 * keys * model.d_model for keys in seen)
    head = 2 * model.d_model * vocab_size
    layers = attention + 2 * matrix_sizes(config)
    again = {"none": 0, "attention": attention, "block": layers, "full": 2 * layers}[remat]
    return 3 * (layers + head) + again + (head if chunk else 0)


def _largest(config: Config, setting: dict[str, Any], vocab_size: int, framework: str, limit: float) -> int:
    """Returns the largest micro-batch of a setting that fits, of those that may be; 0: none."""
    fits = (
        size
        for size in _micro_batches(config)
        if predict(resolved(config, **setting, micro_batch_size=size), vocab_size, framework).total <= limit
    )
    return next(fits, 0)


def _micro_batches(config: Config) -> list[int]:
    """Returns what train.micro_batch_size may become, the largest first: where it is open, what divides the batch. A
    mixture's losses are means over a micro-batch: there another one would be another function, so open means the batch.
    """
    batch, given = config.train.batch_size, config.train.micro_batch_size
    mlps = [layer.mlp for layer in layer_specs(config.model)]
    if given:
        return [given]
    if any(mlp.kind == "moe" and (mlp.balance_loss or mlp.router_z_loss) for mlp in mlps):
        return [batch]
    return [size for size in range(batch, 0, -1) if batch % size == 0]


@dataclass(frozen=True)
class Change:
    """One field set otherwise, and what the run would then take.

    Args:
      name, value: dotted name and value.
      prediction: with it.
    """

    name: str
    value: Any
    prediction: Prediction

    @property
    def text(self) -> str:
        return f"{self.name}={self.value}"

    @property
    def total(self) -> int:
        return self.prediction.total


def helpful(config: Config, vocab_size: int, framework: str) -> list[Change]:
    """Returns the single changes that would save memory, one a field, those that save the most first."""
    now = resolved(config)
    before, best = predict(now, vocab_size, framework).total, {}
    for name, value in _levers(now):
        try:
            changed, _ = drop_unread(now, with_values(now, {name: value}), {name})
            validate(changed, {name})
        except UserError:  # the rest of the config does not allow it
            continue
        change = Change(name, value, predict(changed, vocab_size, framework))
        if change.total < min(before, best[name].total if name in best else before):
            best[name] = change
    return sorted(best.values(), key=lambda change: change.total)


def enough(config: Config, vocab_size: int, framework: str, limit: float) -> list[Change]:
    """Returns changes that fit a limit together, each beside those before it: the one that saves the most, first; none
    where all of them are not enough.
    """
    changes: list[Change] = []
    while not changes or changes[-1].total > limit:
        done = {change.name for change in changes}
        found = [change for change in helpful(config, vocab_size, framework) if change.name not in done]
        if not found:
            return []
        changes.append(found[0])
        config, _ = drop_unread(config, with_values(config, {found[0].name: found[0].value}), {found[0].name})
    return changes


def _levers(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of what may save memory, the mildest value of a field first."""
    yield from (("memory.remat", remat) for remat in ("attention", "block", "full"))
    yield "memory.loss_chunk", CHUNK
    yield from (
        ("train.micro_batch_size", size)
        for size in range(config.train.micro_batch_size - 1, 0, -1)
        if config.train.batch_size % size == 0
    )
    yield "model.attention.kernel", "flash"
    yield "precision.compute", "float16"
    if config.optim.kind == "adamw":
        yield "optim.kind", "adamw8bit"
    yield "data.seq_len", config.data.seq_len // 2
    if config.finetune.base:
        yield "finetune.kind", "lora"
    yield from (("finetune.frozen", held) for held in ("int8", "nf4"))
