"""Gives every field of the schema another valid value, under every choice under which it is read.

All of it comes from the schema: a new field or choice is covered as soon as it is declared. If a field does not act
with BASE and the usual other values, NEEDS and OTHERS say what it needs.
"""

import fnmatch
import functools
import itertools
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

from parity.fields import choices, other_values, selecting, selectors
from slm_core.config import Attention, Config, Data, Mlp, Model, Optim, Precision, Run, Train
from slm_core.config.fields import base_type, field_table, flatten, with_values
from slm_core.config.layers import layer_specs
from slm_core.config.validation import drop_unread, unread, validate
from slm_core.errors import UserError

Values = dict[str, Any]

BASE = Config(
    model=Model(d_model=16, n_layers=1, attention=Attention(n_heads=2), mlp=Mlp(hidden=16)),
    data=Data(seq_len=8),
    optim=Optim(warmup_steps=1, clip_norm=0.01),
    train=Train(
        steps=5, batch_size=2, eval_every=2, eval_batches=2, checkpoint_every=2, log_every=2, sample_every=2,
        sample_tokens=4,
    ),
    precision=Precision(params="float64", compute="float64"),
    run=Run(device="cpu"),
)  # fmt: skip
"""Float64, so that no change of a constant is rounded away. Gradients are clipped, and everything is due twice."""

_YARN = {
    "model.position.scaling_factor": 4.0, "model.position.theta": 100.0, "model.position.original_context": 12,
    "model.position.beta_fast": 1.0, "model.position.beta_slow": 0.1, "model.attention.head_dim": 16,
}  # fmt: skip
_LLAMA3 = {
    "model.position.scaling_factor": 4.0, "model.position.theta": 100.0, "model.position.original_context": 12,
    "model.position.low_freq_factor": 0.1, "model.position.high_freq_factor": 1.5, "model.attention.head_dim": 16,
}  # fmt: skip

TOKENIZER = "../tokenizer.json"

SOURCE = "../source/models/default-torch"
"""A run that another one can continue; `write_source` makes it."""

NEEDS: dict[str, Values] = {
    "model.attention.kernel": {"precision.params": "float32", "precision.compute": "float32"},  # which kernels have
    "model.attention.kind=mla": {"model.attention.v_dim": 12},  # as wide as its keys, for the same reason
    "model.attention.value_residual": {"model.n_layers": 2},
    "model.mixer.convolution_bias": {"model.mixer.convolution": 4},
    "model.position.scaling=linear": {"model.position.scaling_factor": 4.0},
    "model.position.scaling=ntk": {"model.position.scaling_factor": 4.0},
    "model.position.scaling=yarn": _YARN,
    "model.position.scaling=llama3": _LLAMA3,
    "model.position.kind=t5": {"model.position.buckets": 4, "model.position.max_distance": 8},
    "model.mlp.kind=moe": {"model.mlp.experts": 4},
    "model.mlp.groups": {"model.mlp.experts": 8},
    "model.mlp.shared_gate": {"model.mlp.shared_experts": 1},
    "model.mlp.top_groups": {"model.mlp.experts": 8, "model.mlp.groups": 4},
    "optim.kind=adamw8bit": {"optim.quantised_from": 64},
    "optim.decay_biases": {"model.attention.bias": True},
    "optim.min_rms": {"optim.min_rms": 0.5},
    "optim.decay_fraction": {"train.steps": 8, "optim.decay_fraction": 1.0},
    **{f"data.source={source}": {"data.path": "../corpus"} for source in selectors("data.path")["data.source"]},
    "data.source": {"data.seq_len": 20},
    "data.source=task": {"data.seq_len": 20, "data.task_items": 3, "data.task_symbols": 8},  # room for every task
    "data.tokenizer=bpe": {"data.vocab_size": 300},
    "data.document_mask": {"data.seq_len": 200},  # longer than a document
    "precision.params": {"precision.compute": "float32"},
    "memory.limit_gb": {"run.device": "auto"},
    "run.branch": {"run.resume_from": SOURCE, "train.steps": 8},
    "memory.remat": {"model.n_layers": 4},  # enough for groups
    "precision.compute=float16": {"precision.loss_scale_init": 1024.0},
    "precision.loss_scale_growth_interval": {"precision.loss_scale_growth_interval": 1},
    "precision.loss_scale_backoff": {"precision.loss_scale_init": 2.0**23},
    "precision.max_skipped_in_a_row": {"precision.max_skipped_in_a_row": 3},
    "train.keep_best": {"train.checkpoint_every": 0},
    "precision.loss_scale_max": {
        "precision.loss_scale_growth_interval": 1, "precision.loss_scale_init": 1024.0,
        "precision.loss_scale_max": 1500.0,
    },
}  # fmt: skip
"""{field, or field=value of a choice: what BASE must have beside it for it to act}."""

OTHERS: dict[str, Any] = {
    "finetune.base": "../base", "finetune.targets": r"layers\..*q_proj",
    "run.resume_from": SOURCE, "run.branch": "mine",
    "model.pattern": "attention.window=4", "train.micro_batch_size": 1, "train.minutes": 0.005, "data.path": "../other",
    "data.text_field": "body", "data.subset": "second", "data.vocab_size": 280, "data.dir": "elsewhere",
    "data.task_symbols": 16,
    "data.val_fraction": 0.3, "run.dir": "elsewhere", "run.name": "mine", "optim.quantised_from": 4096,
}  # fmt: skip
"""{field: its other value, if none of the usual ones has an effect}."""


MACHINE = ("run.device", "run.compile", "run.threads", "memory.limit_gb")
"""Fields about the machine: they show in what a twin asks of it."""

LOOP = ("precision.max_skipped_in_a_row",)
"""Fields that stand beside those about numerics, and that the loop reads."""

TWINS = tuple(
    name
    for name in field_table()
    if name.startswith(("model.", "optim.", "precision.", "memory.")) and name not in (*MACHINE, *LOOP)
    or name.startswith("finetune.") and name != "finetune.base"
    or name in ("seed", "train.batch_size", "train.micro_batch_size", "data.seq_len", "data.document_mask")
)  # fmt: skip
"""Fields about numerics: they show in what both twins compute."""

RUNS = tuple(
    name
    for name in field_table()
    if name.startswith(("train.", "data.", "run.")) and name not in MACHINE
    or name == "finetune.base" or name in LOOP
    or name.removeprefix("optim.") in ("seed", "lr", "schedule", "warmup_steps", "min_lr_ratio", "decay_fraction")
)  # fmt: skip
"""Fields about the course of a run: they show in what the loop does."""


class NoOp(NamedTuple):
    """A change without an effect, and why it has none. `change` is a pattern of what `Case` shows behind the name."""

    name: str
    change: str
    twins: tuple[str, ...]
    why: str


BOTH = ("torch", "flax")
NO_OPS = (
    NoOp(
        "model.attention.kernel", "=fused -> flash under model.attention.kind=differential", ("flax",),
        "values are wider than keys, which JAX's own kernel lacks: flash computes them",
    ),
    NoOp(
        "model.norm.placement", "=parallel -> parallel_shared under model.norm.weight=none", ("torch",),
        "two norms without weights are one function",
    ),
    NoOp("precision.compute", "=float64 -> auto*", BOTH, "auto stands for it if parameters are float64"),
    NoOp(
        "precision.compute", "=float32 -> auto under precision.params=float32", BOTH, "auto stands for it on a CPU",
    ),
    *(
        NoOp(f"precision.loss_scale_{leaf}", "* under precision.compute=auto", BOTH, "auto is not float16 on a CPU")
        for leaf in ("init", "growth_interval", "backoff", "max")
    ),
    NoOp("memory.remat", "=auto -> none", BOTH, "auto is none if that fits"),
    NoOp("run.compile", "=False -> True", ("flax",), "the Flax twin always compiles"),
)  # fmt: skip

ONLY_VALUES = {("precision.params", "precision.compute=float64")}
"""(field, choice) under which a field has a single valid value."""


class Case(NamedTuple):
    """Two configs that differ in one field, which both read, and in what only one of its values reads."""

    name: str
    context: str  # the choice under which it is read, "model.attention.kind=mla"; "": that of BASE
    base: Config
    other: Config

    def __str__(self) -> str:
        before, after = (flatten(config)[self.name] for config in (self.base, self.other))
        return f"{self.name}={before} -> {after}" + (f" under {self.context}" if self.context else "")

    def fits(self, no_op: NoOp) -> bool:
        return self.name == no_op.name and fnmatch.fnmatchcase(str(self).removeprefix(self.name), no_op.change)

    def documented(self, twin: str) -> bool:
        """Returns whether NO_OPS lists it as one that changes nothing in a twin."""
        return any(twin in no_op.twins and self.fits(no_op) for no_op in NO_OPS)


def cases(name: str, all_choices: bool = False) -> Iterator[Case]:
    """Yields the cases of a field: each context, and in it one other value, or every pair of choices.

    Args:
      name: dotted.
      all_choices: contexts are all choices of the field's section; else its kinds and what decides that it is read.
    """
    for context, base in contexts(name, all_choices):
        values = [flatten(base)[name], *others(name, flatten(base)[name])]
        valid = [config for value in values if (config := _changed(base, name, value))]
        chosen = bool(choices(name))
        pairs = itertools.combinations(valid, 2) if chosen else ((valid[0], other) for other in valid[1:])
        pairs_that_differ = [Case(name, context, *pair) for pair in pairs if _means_other(name, *pair)]
        several = chosen or base_type(field_table()[name].type) is tuple
        yield from pairs_that_differ if several else pairs_that_differ[:1]


def contexts(name: str, all_choices: bool = False) -> Iterator[tuple[str, Config]]:
    """Yields each choice under which a field is read, and a config that has it. Equal configs come once.

    Raises:
      UserError: a choice needs more than BASE has: NEEDS should say what.
    """
    section = name.rpartition(".")[0]
    inside = [other for other in field_table() if other.rpartition(".")[0] == section and other != name]
    swept = [other for other in inside if all_choices or other == f"{section}.kind" or other in _deciding(name)]
    overrides_by_context = {"": _needed(name)}
    for selector in swept:
        for value in values_of(selector):
            overrides_by_context[f"{selector}={value}"] = _choosing(selector, value) | _needed(name) | {selector: value}
    seen: set[Config] = set()
    for context, overrides in overrides_by_context.items():
        config = _overridden(overrides)
        if config not in seen and not unread(config, name):
            validate(config)
            seen.add(config)
            yield context, config


def values_of(name: str) -> tuple[str, ...]:
    """Returns the values of a choice, () of another field."""
    return tuple(choice.replace("PATH", TOKENIZER) for choice in choices(name))


def others(name: str, value: Any) -> tuple[Any, ...]:
    """Returns other values to try for a field; all of them for a choice."""
    if name in OTHERS:
        return (OTHERS[name],)
    return tuple(other for other in values_of(name) or other_values(name, value) if other != value)


def unread_contexts(name: str) -> Iterator[tuple[str, str]]:
    """Yields (selector, value) of each choice that decides that a field is not read."""
    for selector, kinds in selectors(name).items():
        yield from ((selector, value) for value in choices(selector) if value not in kinds)


def _deciding(name: str) -> list[str]:
    """Returns the fields that decide whether a field is read, and those that decide it of them."""
    return [*selectors(name), *(further for selector in selectors(name) for further in _deciding(selector))]


def _needed(name: str) -> Values:
    """Returns the overrides of BASE under which a field is read and acts."""
    chosen = selecting(name, BASE)
    beside = [NEEDS.get(f"{selector}={value}", {}) for selector, value in chosen.items()]
    return functools.reduce(operator.or_, [*beside, chosen, NEEDS.get(name, {})], {})


def _choosing(selector: str, value: str) -> Values:
    return _needed(selector) | NEEDS.get(f"{selector}={value}", {}) | {selector: value}


def _overridden(overrides: Values) -> Config:
    """Returns BASE with overrides, without those that they leave unread."""
    config, _ = drop_unread(BASE, with_values(BASE, overrides), ())
    return with_values(config, {name: field_table()[name].default for name in overrides if unread(config, name)})


def _changed(base: Config, name: str, value: Any) -> Config | None:
    """Returns the config with another value in one field, as the command line would change it; None: it is refused."""
    needs = {n: v for n, v in NEEDS.get(f"{name}={value}", {}).items() if unread(base, n)}
    try:
        config, _ = drop_unread(base, with_values(base, {name: value} | needs), {name, *needs})
        validate(config)
    except UserError:
        return None
    return config


def _means_other(name: str, base: Config, other: Config) -> bool:
    """Returns whether two values mean different things. Setting a width to its resolved default does not."""
    if not name.startswith("model."):
        return base != other
    return layer_specs(base.model) != layer_specs(other.model)
