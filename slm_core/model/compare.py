"""Compares the functions that two configs' models compute; fields that only matter in training are left out."""

import dataclasses
from typing import Any, NamedTuple

from slm_core.config import Config, Model, Position
from slm_core.config.fields import flatten, reads
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.config.option import options
from slm_core.config.widths import rotated
from slm_core.model.mup import logit_factor
from slm_core.model.positions import attention_factor, frequencies

SECTIONS = ("mixer", "attention", "position", "norm", "mlp")
TRAINING = ("mixer.chunk", "attention.kernel", "norm.alpha", "mlp.balance_loss", "mlp.router_z_loss")
"""Fields of a layer that do not change the function of given weights."""
OUTSIDE = (
    "d_model", "n_layers", "tie_embeddings", "head_bias", "embed_scale", "embed_norm", "residual_multiplier",
    "logit_softcap",
)  # fmt: skip

OPTIONAL_PARAMETERS = {
    "attention.bias": (False, True), "attention.output_bias": (False, True), "mlp.bias": (False, True),
    "mlp.router_bias": (False, True), "mlp.balance_bias": (False, True), "norm.bias": (False, True),
    "norm.weight": ("none", "scale"), "head_bias": (False, True), "mixer.convolution_bias": (False, True),
}  # fmt: skip
"""{field: (without, with)}: a model with the parameter computes the same as one without, if its values are 0 or 1."""


class Difference(NamedTuple):
    """A field in which two models compute differently; `layer` is None if it does not belong to a single layer."""

    field: str
    value: Any
    layer: int | None


def describe(config: Config) -> list[dict[str, Any]]:
    """Lists {field inside `model.`: value} of each layer, and last of the parts outside the layers."""
    model = config.model
    layers = [_layer(config, layer) for layer in layer_specs(model)]
    outside = {name: getattr(model, name) for name in OUTSIDE} | {"logit_multiplier": logit_factor(model)}
    final = _section(model, "norm")
    if model.norm.placement == "post" and not model.embed_norm:
        final = {}
    return [*layers, outside | final]


def differences(needed: Config, offered: Config) -> list[Difference]:
    """Lists the fields in which the model of `offered` cannot compute what `needed` computes, in the schema's order.

    The values are those of `needed`.
    """
    a, b = describe(needed), describe(offered)
    by_name: dict[str, Difference] = {}
    for i, (one, other) in enumerate(zip(a, b, strict=False)):
        layer = i if needed.model.pattern and i < len(a) - 1 else None
        for name, value in one.items():
            if name not in by_name and not _same(name, value, other):
                by_name[name] = Difference(f"model.{name}", value, layer)
    if len(a) != len(b):
        by_name.setdefault("n_layers", Difference("model.n_layers", needed.model.n_layers, None))
    order = {name: i for i, name in enumerate(flatten(needed))}
    return sorted(by_name.values(), key=lambda difference: order[difference.field])


def _same(name: str, value: Any, other: dict[str, Any]) -> bool:
    if name not in other:
        return False
    return value == other[name] or (value, other[name]) == OPTIONAL_PARAMETERS.get(name)


def _layer(config: Config, layer: LayerSpec) -> dict[str, Any]:
    values = {}
    for section in SECTIONS:
        values |= _section(layer, section)
    values["mlp.balance_bias"] = bool(values.get("mlp.balance_bias"))
    if layer.mixer.kind != "attention":
        embedded = layer.position.kind in options(Position)["kind"].whole_model
        unread = "attention." if embedded else ("attention.", "position.")
        values = {name: value for name, value in values.items() if not name.startswith(unread)}
    elif layer.position.kind == "rope":
        # Settings that turn by the same angles are one function. Others store angles in float32: compare its digits.
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
