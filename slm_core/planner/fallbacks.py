"""Fallbacks: a kind that the planner has no arithmetic for is counted as a kind that it knows.

So a component that was just added trains before anybody has counted what it keeps. Its parameters are exact all the
same, because the twin declares them.
"""

from collections.abc import Collection
from functools import reduce
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.pattern import parse, pattern_of
from slm_core.planner import flax_layers, resident, torch_attention, torch_block, torch_layers, torch_mlp
from slm_core.planner.xla_constants import COMPILERS

_CPU = COMPILERS["cpu"]
_EXPERTS = torch_mlp.ACTIVATION.keys() & _CPU.mlp.keys()

KNOWN: dict[str, tuple[Collection[str], str]] = {
    "model.attention.kind": (torch_attention.ATTENTION.keys() & set(flax_layers.ATTENTION), "gqa"),
    "model.attention.kernel": (torch_attention.KERNEL.keys(), "dot_product"),
    "model.position.kind": (torch_attention.POSITIONS, "none"),
    "model.norm.kind": (torch_layers.NORM.keys() & _CPU.norm.keys(), "layernorm"),
    "model.norm.placement": (torch_block.PLACEMENT.keys() & flax_layers.NORMS.keys(), "sandwich"),
    "model.mlp.kind": (_EXPERTS | {"moe", "none"}, "gelu"),
    "model.mlp.expert": (_EXPERTS, "gelu"),
    "optim.kind": (resident.KINDS, "adamw"),
}
"""{field: (the kinds that have arithmetic, the fallback of every other kind)}."""


def with_fallbacks(config: Config) -> tuple[Config, dict[str, str]]:
    """Replaces each kind without arithmetic by its fallback.

    Returns:
      The config, and {"model.norm.kind=new": "layernorm"} of what was replaced.
    """
    fallbacks: dict[str, str] = {}

    def known(name: str, kind: Any) -> Any:
        kinds, fallback = KNOWN.get(name, ((kind,), ""))
        if kind in kinds:
            return kind
        fallbacks[f"{name}={kind}"] = fallback
        return fallback

    values = {name: known(name, reduce(getattr, name.split("."), config)) for name in KNOWN}
    layers = [
        {name: known(f"model.{name}", value) for name, value in entry.values.items()}
        for entry in parse(config.model.pattern)
        for _ in range(entry.count)
    ]
    if not fallbacks:
        return config, fallbacks
    return with_values(config, values | {"model.pattern": pattern_of(layers)}), fallbacks
