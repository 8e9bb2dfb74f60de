"""Reads the constants of `slm_core.planner.xla_constants` again, from the plans of the XLA that is installed.

A probe is a pair of configs that differ in what one constant counts. XLA plans both, and compiles but never runs them.
A prediction is linear in the constant, so that

    reading = recorded + (difference of the plans - difference of the predictions) / slope

and errors that both predictions share cancel. If a constant has no such pair, its probe is one config. Its reading then
carries the errors of all other constants too.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

from parity.memory import planned
from slm_core.config import Config, presets
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.planner import predict
from slm_core.planner.xla_constants import COMPILERS, Compiler

Overrides = dict[str, Any]

_BASE: Overrides = {
    "model.d_model": 256, "model.n_layers": 4, "model.attention.n_heads": 4, "model.attention.n_kv_heads": None,
    "model.attention.kernel": "flash", "model.attention.head_dim": 64, "model.mlp.hidden": 512, "data.seq_len": 512,
    "train.batch_size": 8, "train.micro_batch_size": 4, "precision.compute": "float32", "memory.remat": "none",
    "memory.loss_chunk": 128, "memory.limit_gb": 0.0,
}  # fmt: skip
_SCORES = {"model.attention.kernel": "dot_product"}
_MLA = {"model.attention.kind": "mla", "model.attention.kv_rank": 64, "model.attention.rope_dim": 32}
_MOE = {"model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2, "model.mlp.hidden": 256}
_WHOLE_LOGITS = {"memory.loss_chunk": 0}
_ONE_AT_ONCE = {"memory.remat": "block", "train.micro_batch_size": 1, "optim.kind": "adamw8bit"}
_TINY = {
    "model.d_model": 64, "model.n_layers": 1, "model.attention.head_dim": 16, "model.mlp.hidden": 64,
    "data.seq_len": 32,
}  # fmt: skip
_VOCAB, _LARGE_VOCAB = 2048, 16384


class Probe(NamedTuple):
    """The configs that a constant is read from.

    Args:
      before, after: overrides of the same base, and rows of the embedding; `before` None: `after` alone is read.
    """

    before: tuple[Overrides, int] | None
    after: tuple[Overrides, int]


def _pair(common: Overrides, before: Overrides, after: Overrides) -> Probe:
    return Probe((common | before, _VOCAB), (common | after, _VOCAB))


def _vocabularies(common: Overrides) -> Probe:
    return Probe((common, _VOCAB), (common, _LARGE_VOCAB))


PROBES: dict[str, Probe] = {
    **{
        f"norm.{kind}": _pair(
            {"model.norm.kind": kind}, {"model.norm.placement": "pre"}, {"model.norm.placement": "sandwich"}
        )
        for kind in COMPILERS["cpu"].norm
    },
    **{
        f"mlp.{kind}": _pair({"model.mlp.kind": kind}, {"model.mlp.hidden": 512}, {"model.mlp.hidden": 1024})
        for kind in COMPILERS["cpu"].mlp
    },
    "scores": _pair(_SCORES, {}, {"model.attention.n_heads": 8, "model.attention.head_dim": 32}),
    "loop": _pair({}, {"model.attention.head_dim": 64}, {"model.attention.head_dim": 128}),
    "block_keys": _pair(
        {"model.attention.kernel": "fused"}, {"model.attention.n_kv_heads": 1}, {"model.attention.n_kv_heads": 4}
    ),
    "softcap": _pair(_SCORES, {}, {"model.attention.softcap": 30.0}),
    "qk_norm": _pair({}, {}, {"model.attention.qk_norm": "rmsnorm"}),
    "latent": _pair(_MLA, {}, {"model.attention.kv_rank": 256}),
    "joined": _pair(_MLA, {}, {"model.attention.rope_dim": 64}),
    "difference": _pair(
        {"model.attention.kind": "differential"}, {"model.attention.head_dim": 32}, {"model.attention.head_dim": 64}
    ),
    "gate": _pair({}, {}, {"model.attention.gate": "element"}),
    "mixed": _pair({}, {}, {"model.attention.value_residual": True}),
    "routed_hidden": _pair(_MOE, {}, {"model.mlp.hidden": 512}),
    "routed_stream": _pair(_MOE, {"model.mlp.top_k": 1}, {"model.mlp.top_k": 2}),
    "streams_at_loss": Probe(None, ({"model.n_layers": 1}, _VOCAB)),
    "logits": _vocabularies(_WHOLE_LOGITS | {"train.batch_size": 4}),
    "logits_in_loop": _vocabularies(_WHOLE_LOGITS),
    "narrow_streams": _pair({"precision.compute": "float16"}, {"model.n_layers": 2}, {"model.n_layers": 4}),
    "adapted": _pair(
        {"memory.remat": "block", "train.batch_size": 32, "train.micro_batch_size": 16}, {}, {"finetune.kind": "lora"}
    ),
    "moved": _vocabularies({}),
    "moved_8bit": _vocabularies(_ONE_AT_ONCE),
    "slices_8bit": Probe(None, (_ONE_AT_ONCE, _LARGE_VOCAB)),
    "workspace": Probe(None, (_TINY, 256)),
}
"""{constant of `Compiler`: its probe}. `sums_apart_from` is a threshold, and `sums` reads it."""


FITTED = ("streams_at_loss", "logits", "narrow_streams", "adapted", "moved_8bit", "slices_8bit", "workspace")
"""Constants that were fitted over many plans. One probe need not read the recorded value of these."""


class Reading(NamedTuple):
    """A constant, read again.

    Args:
      recorded: its value in `slm_core.planner.xla_constants`.
      value: what the plans say; None: predictions for this compiler do not depend on it.
      from_difference: whether two plans were compared; else one whole plan.
    """

    constant: str
    recorded: float
    value: float | None
    from_difference: bool


def readings(device: str, constants: list[str]) -> Iterator[Reading]:
    """Yields the readings of some constants of PROBES. `device`: "cpu" or "gpu"."""
    compiler = COMPILERS[device]
    for constant in constants:
        probe, recorded = PROBES[constant], value_of(compiler, constant)
        more = changed(compiler, constant, recorded + 1)
        slope = _predicted(probe, device, more) - _predicted(probe, device, compiler)
        value = None
        if slope:
            value = recorded + (_planned(probe, device) - _predicted(probe, device, compiler)) / slope
        yield Reading(constant, recorded, value, probe.before is not None)


class Sum(NamedTuple):
    """The plan of one micro-batch over both predictions: sums apart from their terms, and not."""

    tokens: int
    apart: float
    together: float


def sums() -> Iterator[Sum]:
    """Yields plans of larger and larger micro-batches on a CPU: from which one on does XLA take sums apart?"""
    compiler = COMPILERS["cpu"]
    for micro in (2, 4, 8, 16):
        overrides = {"train.batch_size": 2 * micro, "train.micro_batch_size": micro}
        probe, tokens = Probe(None, (overrides, _VOCAB)), micro * _BASE["data.seq_len"]
        apart, together = (compiler._replace(sums_apart_from=limit) for limit in (tokens, tokens + 1))
        measured = _planned(probe, "cpu")
        yield Sum(tokens, *(measured / _predicted(probe, "cpu", each) for each in (apart, together)))


def value_of(compiler: Compiler, constant: str) -> float:
    """Returns a constant by its name, "scores" or "norm.rmsnorm"."""
    field, _, kind = constant.partition(".")
    return getattr(compiler, field)[kind] if kind else getattr(compiler, field)


def changed(compiler: Compiler, constant: str, value: float) -> Compiler:
    """Returns the constants with another value of one of them."""
    field, _, kind = constant.partition(".")
    fields: dict[str, Any] = {field: getattr(compiler, field) | {kind: value} if kind else value}
    return compiler._replace(**fields)


def _predicted(probe: Probe, device: str, compiler: Compiler) -> int:
    def total(each: tuple[Overrides, int]) -> int:
        return predict(_config(each[0], device), each[1], planned("flax")).update

    with mock.patch.dict(COMPILERS, {device: compiler}):
        return total(probe.after) - (total(probe.before) if probe.before else 0)


def _planned(probe: Probe, device: str) -> int:
    after, before = (_plan(_config(each[0], device), each[1]) if each else 0 for each in (probe.after, probe.before))
    return after - before


@functools.cache
def _plan(config: Config, vocab_size: int) -> int:
    from slm_flax.memory import measured

    return measured(config, vocab_size)


def _config(overrides: Overrides, device: str) -> Config:
    base = with_values(presets.load("configs/llama.py:tiny")[0], _BASE)
    values = overrides | {"run.device": "cpu" if device == "cpu" else "auto"}
    config, _ = drop_unread(base, with_values(base, values), values)
    validate(config, values)
    return config
