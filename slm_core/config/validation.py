"""Checks a config before work starts, and reports one error: values first, then unread fields, then relations."""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

from slm_core.config import Config, Model, Position
from slm_core.config.fields import FieldInfo, field_table, flatten, layer_reads, reads, selected, with_values
from slm_core.config.model_checks import check_model, nearest_divisor
from slm_core.config.option import options
from slm_core.config.pattern import layer_entries, layer_fields, overridden, parse
from slm_core.config.synonyms import synonym
from slm_core.config.values import value_text
from slm_core.errors import UserError, nearest

_WIDTH = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
_BY_PATTERN = "leave it unset, or change model.pattern"
_WHOLE_MODEL_POSITIONS = options(Position)["kind"].whole_model
_BOUNDS = {
    "low": (lambda value, bound: value >= bound, "must be at least"),
    "above": (lambda value, bound: value > bound, "must be more than"),
    "high": (lambda value, bound: value <= bound, "must be at most"),
    "below": (lambda value, bound: value < bound, "must be less than"),
}


def validate(config: Config, explicit: Collection[str] = (), needs_data: bool = True) -> None:
    """Checks a config.

    Args:
      config: what the run would use.
      explicit: dotted names that the user has set; one that nothing reads is an error even at its default value.
      needs_data: whether the fields of the data must be complete.

    Raises:
      UserError: the first mistake in schema order, with field, value and remedy.
    """
    check_values(config)
    _check_all_read(config, explicit)
    check_model(config)
    if needs_data:
        _check_data(config)
    for check in (_check_optim, _check_train, _check_precision, _check_run):
        check(config)
    if config.train.minutes and "train.steps" in explicit:
        raise UserError(
            f"train.minutes={config.train.minutes:g} chooses train.steps, which is set to {config.train.steps} as well:"
            " leave one of the two out"
        )


def check_values(config: Config) -> None:
    """Raises UserError for the first field whose own value is not among its choices or out of its bounds."""
    for name, value in flatten(config).items():
        _check_value(name, value, field_table()[name])
        if name == "model.pattern":
            _check_entries(config.model)


def _check_value(name: str, value: Any, info: FieldInfo) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, float) and not math.isfinite(item):
            raise UserError(f"{name}={item} must be a finite number")
    if info.option.choices:
        _check_choice(name, value, info)
    for key, (holds, words) in _BOUNDS.items():
        bound = getattr(info.option, key)
        if bound is not None and value is not None and not holds(value, bound):
            raise UserError(f"{name}={value} {words} {bound}")


def _check_choice(name: str, value: str, info: FieldInfo) -> None:
    choices = tuple(info.option.choices)
    heads = tuple(choice.removesuffix("PATH") for choice in choices if choice.endswith(":PATH"))
    heads += tuple(form.removesuffix("NAME") for form in info.option.forms)
    if value not in choices and not (heads and value.startswith(heads) and value not in heads):
        hint = synonym(info.name, value) or nearest(value, choices)
        raise UserError(f"{name}={value} is not one of {', '.join(choices)}{hint}")


def _check_entries(model: Model) -> None:
    for entry in parse(model.pattern):
        for name, value in entry.values.items():
            _check_value(f"model.pattern, entry '{entry.text}': {name}", value, layer_fields()[name])


class Unread(NamedTuple):
    """Why nothing reads a field: what decides it, and what to do."""

    by: str
    remedy: str


def unread(config: Config, name: str) -> Unread | None:
    """Returns why nothing reads the field of this dotted name, or None if something reads it."""
    section_name, _, field = name.rpartition(".")
    section: Any = config
    for part in section_name.split(".") if section_name else ():
        section = getattr(section, part)
    in_model = name.removeprefix("model.")
    if not name.startswith("model.") or in_model not in layer_fields():
        return None if reads(section, field) else _decided(section_name, section, field)
    entries = {entry.text: entry for entry in layer_entries(config.model) if in_model not in entry.values}
    if _acts_outside_layers(config.model, in_model) and reads(section, field):
        return None
    layers = [overridden(config.model, entry) for entry in entries.values()]
    if not layers:
        return Unread("any layer, because model.pattern sets it in each", _BY_PATTERN)
    if any(layer_reads(layer, in_model) for layer in layers):
        return None
    if layer_reads(config.model, in_model):
        return Unread(f"any layer: {_decided_in(layers[-1], in_model).by} in model.pattern", _BY_PATTERN)
    return _decided_in(config.model, in_model)


def _acts_outside_layers(model: Model, in_model: str) -> bool:
    """Returns whether a field's section also acts outside the blocks: the outer norms, a position on the embedding."""
    outer_norm = in_model.startswith("norm.") and (model.norm.placement != "post" or model.embed_norm)
    embedded = in_model.startswith("position.") and model.position.kind in _WHOLE_MODEL_POSITIONS
    return outer_norm or embedded


def _decided_in(layer: Model, in_model: str, prefix: str = "model.") -> Unread:
    """Returns the selector that leaves a field of a layer unread; `prefix` is that of the names to show."""
    section_name, field = in_model.split(".")
    section = getattr(layer, section_name)
    if reads(section, field):
        kind = f"{prefix}mixer.kind"
        return Unread(f"{kind}={layer.mixer.kind}", f"leave it unset, or set {kind} to attention")
    return _decided(f"{prefix}{section_name}", section, field)


def _decided(section_name: str, section: Any, field: str) -> Unread:
    """Returns the selector that leaves `field` unread, and the values of the selector that would read it."""
    for selector, kinds in options(type(section))[field].read_by.items():
        if selected(section, selector) not in kinds:
            name = f"{section_name}.{selector}"
            return Unread(
                f"{name}={getattr(section, selector)}", f"leave it unset, or set {name} to {' or '.join(kinds)}"
            )
        if not reads(section, selector):
            return _decided(section_name, section, selector)
    raise ValueError(f"{section_name}.{field} is read")


def _check_all_read(config: Config, explicit: Collection[str]) -> None:
    for name, value in flatten(config).items():
        if name == "model.pattern":
            _check_entries_read(config.model)
        if value == field_table()[name].default and name not in explicit:
            continue
        if why := unread(config, name):
            raise UserError(f"{name}={value_text(value)} is not read by {why.by}: {why.remedy}")


def _check_entries_read(model: Model) -> None:
    for entry in parse(model.pattern):
        layer = overridden(model, entry)
        for name, value in entry.values.items():
            if not layer_reads(layer, name):
                why = _decided_in(layer, name, prefix="")
                raise UserError(
                    f"model.pattern, entry '{entry.text}': {name}={value_text(value)} is not read by {why.by}:"
                    f" {why.remedy}"
                )


def drop_unread(preset: Config, config: Config, explicit: Collection[str]) -> tuple[Config, list[str]]:
    """Resets the fields that a preset sets and an override leaves unread, such as theta under another position.kind.

    Args:
      preset: the config without overrides.
      config: the config with overrides.
      explicit: dotted names of the overrides.

    Returns:
      The config with those fields at their defaults, and one line about each.

    Raises:
      UserError: a value that its field cannot have (see `check_values`).
    """
    check_values(config)
    notes = []
    for name, value in flatten(config).items():
        default = field_table()[name].default
        if name in explicit or value == default or unread(preset, name):
            continue
        if why := unread(config, name):
            config = with_values(config, {name: default})
            notes.append(f"{name}={value_text(value)} of the preset is not read by {why.by}; left at its default")
    return config, notes


def _check_data(config: Config) -> None:
    data = config.data
    if not data.path and reads(data, "path"):
        raise UserError(f"data.path is empty and data.source={data.source} reads it: give --config.data.path=PATH")


def _check_optim(config: Config) -> None:
    optim, steps = config.optim, config.train.steps
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise UserError(f"optim.betas={value_text(optim.betas)} must each be at least 0 and less than 1")
    if optim.kind == "schedule_free" and optim.betas[0] == 0:
        raise UserError("optim.betas=0,... leaves optim.kind=schedule_free nothing to average: set the first above 0")
    if ":" in optim.kind and config.model.mup_base_width:
        raise UserError(
            f"model.mup_base_width={config.model.mup_base_width}: no rule says how optim.kind={optim.kind} scales with"
            " the width; set it to 0"
        )
    if optim.warmup_steps is not None and optim.warmup_steps >= steps and not config.train.minutes:
        raise UserError(
            f"optim.warmup_steps={optim.warmup_steps} must be less than train.steps={steps}:"
            f" set --config.optim.warmup_steps={steps // 10}, or leave it unset"
        )


def _check_train(config: Config) -> None:
    batch, micro = config.train.batch_size, config.train.micro_batch_size
    for field in ("branch", "resume_from"):
        if config.train.minutes and (source := getattr(config.run, field)):
            raise UserError(
                f"run.{field}={source}: train.minutes={config.train.minutes:g} plans a run from its first update; set"
                " train.steps instead"
            )
    if micro and batch % micro:
        raise UserError(
            f"train.micro_batch_size={micro} does not divide train.batch_size={batch}:"
            f" use {nearest_divisor(batch, micro)}"
        )


def _check_precision(config: Config) -> None:
    precision = config.precision
    if _WIDTH.get(precision.compute, 0) > _WIDTH[precision.params]:
        raise UserError(
            f"precision.compute={precision.compute} is wider than precision.params={precision.params}:"
            f" set precision.params={precision.compute} too, or compute in {precision.params}"
        )
    if precision.loss_scale_init > precision.loss_scale_max:
        raise UserError(
            f"precision.loss_scale_init={precision.loss_scale_init} must be at most"
            f" precision.loss_scale_max={precision.loss_scale_max}"
        )


def _check_run(config: Config) -> None:
    run = config.run
    for field in ("name", "branch"):
        name = getattr(run, field)
        if name in (".", "..") or any(mark in name for mark in "/\\\0"):
            raise UserError(f"run.{field}={name} must be a plain folder name: set run.dir for the folder that holds it")
    if run.branch and run.branch == run.name:
        raise UserError(f"run.branch={run.branch} is run.name, too: a branch is a new run, so give it another name")
    if run.branch and not (run.name or run.resume_from):
        raise UserError(
            f"run.branch={run.branch} does not say from which run: give its folder as run.resume_from, or its name as"
            " run.name"
        )
    if run.branch and run.name and run.resume_from:
        raise UserError(
            f"run.name={run.name} names no run beside run.branch={run.branch} and run.resume_from={run.resume_from}:"
            " leave it unset; the new run gets the name of the branch"
        )
