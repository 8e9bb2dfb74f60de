"""The resolved model of every layer: the pattern's values in, and every width that was unset filled in."""

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any

from slm_core.config import Attention, Mlp, Model
from slm_core.config.fields import reads, with_values
from slm_core.config.pattern import Entry, layer_entries, layer_fields, overridden


@dataclass(frozen=True)
class AttentionSpec(Attention):
    """`Attention` of one layer, in which every width is a number."""

    n_kv_heads: int = 1
    head_dim: int = 1
    kv_rank: int = 1
    rope_dim: int = 1
    v_dim: int = 1
    scale: float = 1.0
    output_bias: bool = False


@dataclass(frozen=True)
class MlpSpec(Mlp):
    """`Mlp` of one layer, in which every width is a number."""

    hidden: int = 1


@dataclass(frozen=True)
class LayerSpec(Model):
    """The model of one layer: its pattern applied, and every width a number."""

    attention: AttentionSpec = field(default_factory=AttentionSpec)
    mlp: MlpSpec = field(default_factory=MlpSpec)


def resolve(model: Model) -> LayerSpec:
    """Fills in every width that is unset, as the field's own line in the schema says.

    Gated MLPs take two thirds of 4 d_model, because they have three matrices (Shazeer 2020).
    """
    attention = model.attention
    head_dim = model.d_model // attention.n_heads // (2 if attention.kind == "differential" else 1)
    head_dim = attention.head_dim or head_dim
    rope_dim = attention.rope_dim or head_dim // 2
    query = head_dim + rope_dim if attention.kind == "mla" else head_dim
    widths = {
        "n_kv_heads": attention.n_heads,
        "head_dim": head_dim,
        "kv_rank": 4 * head_dim,
        "rope_dim": rope_dim,
        "v_dim": head_dim,
        "scale": _default_scale(model, query),
        "output_bias": attention.bias,
    }
    values = {
        **_values(model),
        "attention": AttentionSpec(**_filled(attention, widths)),
        "mlp": MlpSpec(**_filled(model.mlp, {"hidden": default_hidden(model)})),
    }
    return LayerSpec(**values)


def _values(section: Any) -> dict[str, Any]:
    return {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}


def _filled(section: Any, widths: dict[str, Any]) -> dict[str, Any]:
    return {name: widths.get(name) if value is None else value for name, value in _values(section).items()}


def _default_scale(model: Model, query: int) -> float:
    """Under muP scores fall with the width, not with its root; at a width of 64 the two agree."""
    if model.attention.qk_norm == "l2":
        return query**0.5
    return 8 / query if model.mup_base_width else query**-0.5


def default_hidden(model: Model) -> int:
    """Returns the inner width of an MLP (of one expert) whose config leaves it unset."""
    dense = {"gelu": 4 * model.d_model, "swiglu": -(-8 * model.d_model // 96) * 32}
    dense |= {"relu2": dense["gelu"], "geglu": dense["swiglu"], "clipped_swiglu": dense["swiglu"]}
    if model.mlp.kind != "moe":
        return dense[model.mlp.kind]
    visited = model.mlp.top_k + model.mlp.shared_experts
    return -(-dense[model.mlp.expert] // (8 * visited)) * 8


def _without_unread(model: Model, entry: Entry) -> Model:
    """Returns the layer's model with the fields that its kinds do not read back at their defaults."""
    for name, info in layer_fields().items():
        section, field = name.split(".")
        if name not in entry.values and not reads(getattr(model, section), field):
            model = with_values(model, {name: info.field.default})
    return model


@functools.lru_cache(maxsize=256)
def layer_specs(model: Model) -> tuple[LayerSpec, ...]:
    """Returns the spec of each layer.

    `position.kind` of a layer may also be "learned" or "sinusoidal", as the model says: those act on the embedding, and
    attention does nothing for them. Equal layers are equal values.

    Raises:
      UserError: naming model.pattern and the entry that is wrong.
    """
    entries = layer_entries(model)
    resolved = {entry.text: resolve(_without_unread(overridden(model, entry), entry)) for entry in entries}
    return tuple(resolved[entry.text] for entry in entries)
