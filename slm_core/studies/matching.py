"""Makes the variants of a study comparable: equal tokens, parameters, floating-point operations or time."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.studies.study import Study
from slm_core.studies.variants import Variant

CLOSE = 0.01
"""Largest relative difference of the numbers of parameters that counts as equal."""

WIDEST = 4
"""An MLP is made at most this many times wider or narrower."""


@dataclass(frozen=True)
class Costs:
    """How the costs of a config are found. `slm_core` itself imports no twin.

    Args:
      parameters: config -> number of parameters.
      flops: config -> floating-point operations of one update, forward and backward, counted on the traced model.
      seconds: config -> seconds of one update in the study's first twin, measured.
    """

    parameters: Callable[[Config], int]
    flops: Callable[[Config], float]
    seconds: Callable[[Config], float]


def matched(study: Study, costs: Costs, say: Callable[[str], None] = lambda line: None) -> Study:
    """Adjusts the variants so that they match the first one, and records their parameters and operations.

    Args:
      say: is called with a line before each measurement that takes seconds.

    Raises:
      UserError: a variant cannot be made to match; says why.
    """
    adjusted, notes, facts = {}, {}, {}
    for variant in study.variants:
        values, lines = _MATCH[study.match](study, variant, costs, say)
        adjusted[variant.name] = study.adjusted.get(variant.name, {}) | values
        notes[variant.name] = (*study.notes.get(variant.name, ()), *lines)
    study = dataclasses.replace(study, adjusted=adjusted, notes=notes)
    for variant in study.variants:
        config = study.config(variant)
        say(f"counting the operations of {variant.name}")
        facts[variant.name] = {"parameters": costs.parameters(config), "flops": costs.flops(config)}
    return dataclasses.replace(study, facts=facts)


Adjusted = tuple[dict[str, Any], tuple[str, ...]]
Say = Callable[[str], None]


def _steps(study: Study, variant: Variant, costs: Costs, say: Say) -> Adjusted:
    return {}, ()


def _tokens(study: Study, variant: Variant, costs: Costs, say: Say) -> Adjusted:
    return _with_steps(
        study, variant, lambda config: config.train.batch_size * config.data.seq_len, "tokens per update"
    )


def _flops(study: Study, variant: Variant, costs: Costs, say: Say) -> Adjusted:
    say(f"counting the operations of {variant.name}")
    return _with_steps(study, variant, costs.flops, "operations per update")


def _time(study: Study, variant: Variant, costs: Costs, say: Say) -> Adjusted:
    say(f"measuring an update of {variant.name}")
    return _with_steps(study, variant, costs.seconds, "seconds per update")


def _with_steps(study: Study, variant: Variant, cost: Callable[[Config], float], what: str) -> Adjusted:
    """Changes the number of updates, so that all of them together cost what those of the first variant do."""
    if variant == study.variants[0]:
        return {}, ()
    first, config = study.config(study.variants[0]), study.config(variant)
    _refuse_own(variant, "train.steps", study.match)
    ratio = cost(first) / cost(config)
    steps = max(1, round(first.train.steps * ratio))
    if steps == config.train.steps:
        return {}, ()
    return {"train.steps": steps}, (
        f"train.steps={steps} instead of {config.train.steps}: {1 / ratio:.3g} times the {what}",
    )


def _parameters(study: Study, variant: Variant, costs: Costs, say: Say) -> Adjusted:
    """Changes the inner width of the MLPs, or if the variant sets that itself, the width of the residual stream."""
    goal = costs.parameters(study.config(study.variants[0]))
    config = study.config(variant)
    count = costs.parameters(config)
    if abs(count / goal - 1) <= CLOSE:
        return {}, ()
    for field, widths in _widths(config, variant).items():
        best = _nearest(config, field, widths, goal, costs.parameters)
        reached = costs.parameters(with_values(config, {field: best}))
        if abs(reached / goal - 1) <= CLOSE:
            line = f"{field}={best}: {reached:,} parameters instead of {count:,}, to match {goal:,}"
            return {field: best}, (line,)
    raise UserError(
        f"variant {variant.name!r}: it has {count:,} parameters and the baseline {goal:,}; no width of its MLPs within"
        f" a factor of {WIDEST}, nor another d_model, comes within {CLOSE:.0%}; change its size, or use another --match"
    )


def _widths(config: Config, variant: Variant) -> Mapping[str, range]:
    """Returns {field: its possible widths}, the fields in the order in which they are tried."""
    hidden = layer_specs(config.model)[0].mlp.hidden
    heads = config.model.attention.n_heads
    fields = {
        "model.mlp.hidden": range(max(1, hidden // WIDEST), hidden * WIDEST + 1),
        "model.d_model": range(2 * heads, 4 * config.model.d_model + 1, 2 * heads),
    }
    patterned = "mlp.hidden" in config.model.pattern
    return {
        field: widths
        for field, widths in fields.items()
        if field not in variant.overrides and not (patterned and field == "model.mlp.hidden")
    }


def _nearest(config: Config, field: str, widths: range, goal: int, count: Callable[[Config], int]) -> int:
    """Finds the width whose number of parameters is nearest to the goal, by bisection: more width, more parameters."""
    low, high = 0, len(widths) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if count(with_values(config, {field: widths[middle]})) <= goal:
            low = middle
        else:
            high = middle
    return min((widths[low], widths[high]), key=lambda width: abs(count(with_values(config, {field: width})) - goal))


def _refuse_own(variant: Variant, field: str, match: str) -> None:
    if field in variant.overrides:
        raise UserError(f"variant {variant.name!r}: it sets {field}, which --match={match} adjusts; leave one out")


_MATCH: Mapping[str, Callable[[Study, Variant, Costs, Say], Adjusted]] = {
    "steps": _steps,
    "tokens": _tokens,
    "parameters": _parameters,
    "flops": _flops,
    "time": _time,
}
