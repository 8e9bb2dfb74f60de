"""Searches for settings that fit a memory limit: those that cost the least time, and the changes that save the most."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.config.validation import drop_unread, validate
from slm_core.errors import UserError
from slm_core.planner import Prediction, Twin, predict
from slm_core.planner.declarations import matrix_weights_per_token

CHUNK = 1024
"""Tokens per chunk of the loss if the planner chooses: enough rows to fill a device, few enough to be small."""

ENOUGH = 2048
"""Tokens in memory at once that keep a small card busy. Above them a larger micro-batch is not worth more computing."""


def resolved(config: Config, **fields: Any) -> Config:
    """Sets the open fields to the values that `predict` counts them as, or to `fields`.

    Args:
      fields: remat, loss_chunk, micro_batch_size.
    """
    memory, train = config.memory, config.train
    values = {
        "memory.remat": "none" if memory.remat == "auto" else memory.remat,
        "memory.loss_chunk": memory.loss_chunk or 0,
        "train.micro_batch_size": train.micro_batch_size or train.batch_size,
    }
    names = {
        "remat": "memory.remat",
        "loss_chunk": "memory.loss_chunk",
        "micro_batch_size": "train.micro_batch_size",
    }
    return with_values(config, values | {names[field]: value for field, value in fields.items()})


def cheapest(config: Config, vocab_size: int, twin: Twin, limit: float) -> Config | None:
    """Sets the open fields to the values that take the least time of all that fit; returns None if none fits.

    Open are memory.remat "auto", memory.loss_chunk unset and train.micro_batch_size 0. Of the settings with which
    ENOUGH tokens fit at once, those win that compute the least again, and then those that let the most tokens fit. If
    no setting lets ENOUGH fit, the one wins that lets the most fit.

    Args:
      limit: bytes.
    """
    candidates = []
    for setting in _settings(config):
        micro = _largest(config, setting, vocab_size, twin, limit)
        if micro:
            tokens = min(micro * config.data.seq_len, ENOUGH)
            work = _work(config, vocab_size, twin, **setting)
            candidates.append((-tokens, work, -micro, resolved(config, **setting, micro_batch_size=micro)))
    return min(candidates, key=lambda item: item[:3])[3] if candidates else None


def largest_micro_batch(config: Config, vocab_size: int, twin: Twin, limit: float) -> int:
    """Returns how many sequences fit at once, whatever train.micro_batch_size says; 0: not even one fits.

    The other open fields are chosen so that the most fit.
    """
    opened = with_values(config, {"train.micro_batch_size": 0})
    return max(_largest(opened, setting, vocab_size, twin, limit) for setting in _settings(config))


def smallest(config: Config, vocab_size: int, twin: Twin) -> Config:
    """Sets the open fields to the values that take the least memory."""
    micro = _micro_batches(config)[-1]
    candidates = (resolved(config, **setting, micro_batch_size=micro) for setting in _settings(config))
    return min(candidates, key=lambda each: predict(each, vocab_size, twin).total)


def _settings(config: Config) -> Iterator[dict[str, Any]]:
    """Yields the values that remat and loss_chunk may take."""
    remats = ("none", "attention", "block", "full") if config.memory.remat == "auto" else (config.memory.remat,)
    chunks = (0, CHUNK) if config.memory.loss_chunk is None else (config.memory.loss_chunk,)
    for remat, chunk in itertools.product(remats, chunks):
        yield {"remat": remat, "loss_chunk": chunk}


def _work(config: Config, vocab_size: int, twin: Twin, remat: str, loss_chunk: int) -> float:
    """Counts the FLOP per token of the forward pass, the backward pass (twice as many) and recomputation."""
    model, length = config.model, config.data.seq_len
    attention = sum(4 * _seen(layer, length) * model.d_model for layer in layer_specs(model))
    head = 2 * model.d_model * vocab_size
    layers = attention + 2 * matrix_weights_per_token(config, vocab_size, twin.declare)
    again = {"none": 0, "attention": attention, "block": layers, "full": 2 * layers}[remat]
    return 3 * (layers + head) + again + (head if loss_chunk else 0)


def _seen(layer: LayerSpec, length: int) -> int:
    """Counts the keys that a token is compared with; a recurrence compares it with its chunk and with the state."""
    if layer.mixer.kind != "attention":
        return min(length, layer.mixer.chunk) + layer.mixer.key_dim
    return min(length, layer.attention.window or length)


def _largest(config: Config, setting: dict[str, Any], vocab_size: int, twin: Twin, limit: float) -> int:
    """Returns the largest allowed micro-batch with which a setting fits; 0: none."""
    fits = (
        size
        for size in _micro_batches(config)
        if predict(resolved(config, **setting, micro_batch_size=size), vocab_size, twin).total <= limit
    )
    return next(fits, 0)


def _micro_batches(config: Config) -> list[int]:
    """Returns the values that train.micro_batch_size may take, largest first; open: all divisors of the batch.

    A mixture's losses are means over a micro-batch, so another micro-batch would be another function: open then means
    the whole batch.
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
    """One field set to another value, and the memory that the run would then take.

    Args:
      name, value: dotted name and value.
      prediction: with this value.
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


def helpful(config: Config, vocab_size: int, twin: Twin) -> list[Change]:
    """Returns the single changes that would save memory, one per field, the largest saving first."""
    now = resolved(config)
    before, best = predict(now, vocab_size, twin).total, {}
    for name, value in _candidates(now):
        try:
            changed, _ = drop_unread(now, with_values(now, {name: value}), {name})
            validate(changed, {name})
        except UserError:  # another field of the config does not allow it
            continue
        change = Change(name, value, predict(changed, vocab_size, twin))
        if change.total < min(before, best[name].total if name in best else before):
            best[name] = change
    return sorted(best.values(), key=lambda change: change.total)


def enough(config: Config, vocab_size: int, twin: Twin, limit: float) -> list[Change]:
    """Returns changes with which the run fits a limit together; none if all of them are not enough.

    Each is the change that saves the most beside those before it.
    """
    changes: list[Change] = []
    while not changes or changes[-1].total > limit:
        done = {change.name for change in changes}
        best = next((change for change in helpful(config, vocab_size, twin) if change.name not in done), None)
        if best is None:
            return []
        changes.append(best)
        config, _ = drop_unread(config, with_values(config, {best.name: best.value}), {best.name})
    return changes


def _candidates(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of the changes that may save memory, the mildest value of a field first."""
    yield from (("memory.remat", remat) for remat in ("attention", "block", "full"))
    yield "memory.loss_chunk", CHUNK
    yield "run.async_saving", False
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
    yield from (("finetune.frozen", stored_as) for stored_as in ("int8", "nf4"))
