"""The resolved model of each layer: the pattern is applied, and every unset width is filled in."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, TypeVar

from slm_core.config import Attention, Mixer, Mlp, Model
from slm_core.config.fields import layer_reads, with_values
from slm_core.config.mixer import DELTA
from slm_core.config.model import GATED_MLPS
from slm_core.config.pattern import Entry, layer_entries, layer_fields, overridden

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class AttentionSpec(Attention):
    """`Attention` of one layer, in which every width that its kind reads is a number."""

    n_kv_heads: int
    head_dim: int
    kv_rank: int
    rope_dim: int
    v_dim: int
    scale: float
    output_bias: bool


@dataclass(frozen=True, kw_only=True)
class MixerSpec(Mixer):
    """`Mixer` of one layer, in which every width is a number."""

    key_dim: int
    key_heads: int
    value_dim: int
    convolution: int


@dataclass(frozen=True, kw_only=True)
class MlpSpec(Mlp):
    """`Mlp` of one layer, in which the width is a number."""

    hidden: int


@dataclass(frozen=True, kw_only=True)
class LayerSpec(Model):
    """The model of one layer: its pattern is applied, and every width is a number."""

    mixer: MixerSpec
    attention: AttentionSpec
    mlp: MlpSpec


def resolve(model: Model) -> LayerSpec:
    """Fills in every width that is unset, as the field's own line in the schema says."""
    mixer = _spec(MixerSpec, model.mixer, _unset(model.mixer, _mixer_widths(model)))
    attention = _spec(AttentionSpec, model.attention, _unset(model.attention, _attention_widths(model)))
    mlp = _spec(MlpSpec, model.mlp, _unset(model.mlp, {"hidden": default_hidden(model)}))
    return _spec(LayerSpec, model, {"mixer": mixer, "attention": attention, "mlp": mlp})


def _spec(kind: type[S], section: Any, changes: dict[str, Any]) -> S:
    values = {each.name: getattr(section, each.name) for each in dataclasses.fields(section)}
    return kind(**values | changes)


def _unset(section: Any, widths: dict[str, Any]) -> dict[str, Any]:
    return {name: width for name, width in widths.items() if getattr(section, name) is None}


def _mixer_widths(model: Model) -> dict[str, int]:
    """Returns {field: its value} for every field of the mixer that may be unset."""
    width, kind = model.d_model // model.mixer.n_heads, model.mixer.kind
    return {
        "key_dim": width,
        "key_heads": 1 if kind == "mamba2" else model.mixer.n_heads,
        "value_dim": 2 * width if kind == "mamba2" else width,
        "convolution": 4 if kind in (*DELTA, "mamba2") else 0,
    }


def _attention_widths(model: Model) -> dict[str, Any]:
    """Returns {field: its value} for every field of attention that may be unset and then follows from others."""
    attention = model.attention
    parts = attention.n_heads * (2 if attention.kind == "differential" else 1)
    head_dim = attention.head_dim or max(model.d_model // parts, 1)  # 1: another mixer, in a narrow model
    rope_dim = attention.rope_dim or head_dim // 2
    query = head_dim + rope_dim if attention.kind == "mla" else head_dim
    return {
        "n_kv_heads": attention.n_heads,
        "head_dim": head_dim,
        "kv_rank": 4 * head_dim,
        "rope_dim": rope_dim,
        "v_dim": head_dim,
        "scale": _default_scale(model, query),
        "output_bias": attention.bias,
    }


def _default_scale(model: Model, query: int) -> float:
    """Under muP, scores are divided by the width instead of its root; at a width of 64 the two agree."""
    if model.attention.qk_norm == "l2":
        return query**0.5
    return 8 / query if model.mup_base_width else query**-0.5


def default_hidden(model: Model) -> int:
    """Computes the inner width of an MLP, or of one expert, whose config leaves it unset.

    A gated MLP takes two thirds of 4 d_model, because it has three matrices (Shazeer 2020).
    """
    mixture = model.mlp.kind == "moe"
    gated = (model.mlp.expert if mixture else model.mlp.kind) in GATED_MLPS
    dense = _round_up(8 * model.d_model, 3 * 32) // 3 if gated else 4 * model.d_model
    visited = model.mlp.top_k + model.mlp.shared_experts
    return _round_up(dense, 8 * visited) // visited if mixture else dense


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _without_unread(model: Model, entry: Entry) -> Model:
    """Resets the fields that the layer's kinds do not read, unless the entry sets them."""
    for name, info in layer_fields().items():
        if name not in entry.values and not layer_reads(model, name):
            model = with_values(model, {name: info.default})
    return model


@functools.lru_cache(maxsize=256)
def layer_specs(model: Model) -> tuple[LayerSpec, ...]:
    """Resolves each layer of a model. Equal layers are equal values.

    A layer keeps the model's `position.kind` even if it acts on the embedding: attention then does nothing for it.

    Raises:
      UserError: an entry of model.pattern that is wrong; names it.
    """
    entries = layer_entries(model)
    resolved = {entry.text: resolve(_without_unread(overridden(model, entry), entry)) for entry in entries}
    return tuple(resolved[entry.text] for entry in entries)
