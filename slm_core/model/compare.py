"""The function that a config's model computes, as values to compare: what trains it is left out."""

import dataclasses
from typing import Any, NamedTuple

from slm_core.config import Config, Model
from slm_core.config.fields import flatten, reads
from slm_core.config.layers import layer_specs
from slm_core.config.widths import rotated
from slm_core.model.mup import logit_factor
from slm_core.model.positions import attention_factor, frequencies

SECTIONS = ("attention", "position", "norm", "mlp")
TRAINING = ("attention.kernel", "norm.alpha", "mlp.balance_loss", "mlp.router_z_loss")
"""Fields of a layer that leave the function of given weights as it is."""
OUTSIDE = ("d_model", "n_layers", "tie_embeddings", "embed_scale", "embed_norm", "residual_multiplier", "logit_softcap")

MORE = {
    "attention.bias": (False, True), "attention.output_bias": (False, True), "mlp.bias": (False, True),
    "mlp.router_bias": (False, True), "mlp.balance_bias": (False, True), "norm.bias": (False, True),
    "norm.weight": ("none", "scale"),
}  # fmt: skip
"""{field: (ours, theirs)}: a family that has the parameter computes ours with zeros, or ones, in it."""


class Difference(NamedTuple):
    """A field in which two models compute differently; `layer` is None where it is not of one layer alone."""

    field: str
    value: Any
    layer: int | None


def describe(config: Config) -> list[dict[str, Any]]:
    """Returns {field inside `model.`: value} of each layer, then of what is outside the layers."""
    model = config.model
    layers = [_layer(config, layer) for layer in layer_specs(model)]
    outside = {name: getattr(model, name) for name in OUTSIDE} | {"logit_multiplier": logit_factor(model)}
    final = _section(model, "norm")
    if model.norm.placement == "post" and not model.embed_norm:
        final = {}
    return [*layers, outside | final]


def differences(ours: Config, theirs: Config) -> list[Difference]:
    """Returns where `theirs` cannot compute what `ours` computes, in schema order, each field once."""
    a, b = describe(ours), describe(theirs)
    found: dict[str, Difference] = {}
    for i, (one, other) in enumerate(zip(a, b, strict=False)):
        layer = i if ours.model.pattern and i < len(a) - 1 else None
        for name, value in one.items():
            same = name in other and (value == other[name] or (value, other[name]) == MORE.get(name))
            if not same and name not in found:
                found[name] = Difference(f"model.{name}", value, layer)
    if len(a) != len(b):
        found.setdefault("n_layers", Difference("model.n_layers", ours.model.n_layers, None))
    order = {name: i for i, name in enumerate(flatten(ours))}
    return sorted(found.values(), key=lambda difference: order[difference.field])


def _layer(config: Config, layer: Model) -> dict[str, Any]:
    values = {}
    for section in SECTIONS:
        values |= _section(layer, section)
    values["mlp.balance_bias"] = bool(values.get("mlp.balance_bias"))
    if layer.position.kind == "rope":
        # Two settings that turn by the same angles are one function. Theirs are float32: no digits beyond that count.
        values = {name: value for name, value in values.items() if not name.startswith("position.")}
        turns = tuple(f"{frequency:.6g}" for frequency in frequencies(layer, config.data.seq_len))
        temperature = f"{attention_factor(layer.position):.6g}"
        values |= {"position.kind": "rope", "position.fraction": rotated(layer)}
        values |= {"position.scaling": (turns, temperature)}
    if layer.mlp.kind == "moe" and layer.mlp.groups == 1:
        del values["mlp.top_groups"]
    return values


def _section(model: Model, section: str) -> dict[str, Any]:
    owner = getattr(model, section)
    leaves = {f"{section}.{field.name}": field.name for field in dataclasses.fields(owner)}
    return {name: getattr(owner, leaf) for name, leaf in leaves.items() if name not in TRAINING and reads(owner, leaf)}
