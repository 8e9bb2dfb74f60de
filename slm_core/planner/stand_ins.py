"""Kinds that the planner has no arithmetic for, counted as kinds that it has: so a component that was just added trains
before anybody has counted what it keeps."""

from collections.abc import Collection
from functools import reduce
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.pattern import parse, pattern_of
from slm_core.planner import flax_layers, held, parameters, torch_layers, torch_mlp, torch_step

_EXPERTS = torch_mlp.ACTIVATION.keys() & flax_layers.MLP.keys()

KNOWN: dict[str, tuple[Collection[str], str]] = {
    "model.attention.kind": (parameters.ATTENTION.keys() & torch_layers.ATTENTION.keys(), "gqa"),
    "model.attention.kernel": (torch_layers.KERNEL.keys(), "dot_product"),
    "model.position.kind": (torch_layers.POSITIONS, "none"),
    "model.norm.kind": (torch_layers.NORM.keys() & flax_layers.NORM.keys(), "layernorm"),
    "model.norm.placement": (parameters.NORMS.keys() & torch_step.PLACEMENT.keys(), "sandwich"),
    "model.mlp.kind": (_EXPERTS | {"moe"}, "gelu"),
    "model.mlp.expert": (_EXPERTS, "gelu"),
    "optim.kind": (held.KINDS, "adamw"),
}
"""{field: the kinds that are counted, and the one that every other is counted as}."""


def counted(config: Config) -> tuple[Config, dict[str, str]]:
    """Returns the config as the planner counts it, and {"model.norm.kind=other": what it is counted as}."""
    found: dict[str, str] = {}

    def known(name: str, kind: Any) -> Any:
        kinds, stand_in = KNOWN.get(name, ((kind,), ""))
        if kind in kinds:
            return kind
        found[f"{name}={kind}"] = stand_in
        return stand_in

    values = {name: known(name, reduce(getattr, name.split("."), config)) for name in KNOWN}
    layers = [
        {name: known(f"model.{name}", value) for name, value in entry.values.items()}
        for entry in parse(config.model.pattern)
        for _ in range(entry.count)
    ]
    if not found:
        return config, found
    return with_values(config, values | {"model.pattern": pattern_of(layers)}), found
