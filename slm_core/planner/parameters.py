"""The parameters of a config, by canonical name, told without a framework: what the twins declare, in numbers."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from slm_core.config import Config, Finetune, Mlp, Model, Norm
from slm_core.config.layers import layer_specs
from slm_core.config.widths import query_width, value_shape
from slm_core.model.initialization import Spec
from slm_core.quantization.formats import FORMATS
from slm_core.quantization.lora import HEAD, adapter, plan_adapters


class Parameter(NamedTuple):
    """One parameter.

    Args:
      shape: as both twins store it.
      role: see `slm_core.model.initialization.Spec`.
      dtype: of what is stored; "": precision.params.
    """

    shape: tuple[int, ...]
    role: str
    dtype: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


Named = Iterator[tuple[str, Parameter]]

GATED = {"swiglu", "geglu", "clipped_swiglu"}
"""Kinds of MLP, and of experts, with a gate."""

NORMS = {
    "pre": ("attention_norm", "mlp_norm"),
    "post": ("attention_norm", "mlp_norm"),
    "sandwich": ("attention_norm", "attention_output_norm", "mlp_norm", "mlp_output_norm"),
    "output": ("attention_norm", "mlp_norm"),
    "parallel": ("attention_norm", "mlp_norm"),
    "parallel_shared": ("attention_norm",),
}
"""{norm.placement: the norms of a block}."""


def parameters(config: Config, vocab_size: int) -> dict[str, Parameter]:
    """Returns {canonical name: parameter} of the model that both twins make of a config."""
    model, context = config.model, config.data.seq_len
    found = {"embed.weight": Parameter((vocab_size, model.d_model), "embedding")}
    if model.embed_norm:
        found |= dict(_norm("embed_norm", model.d_model, model.norm))
    if model.position.kind == "learned":
        found["position.weight"] = Parameter((context, model.d_model), "embedding")
    for index, layer in enumerate(layer_specs(model)):
        found |= {f"layers.{index}.{name}": parameter for name, parameter in _block(layer, index)}
    if model.norm.placement != "post":
        found |= dict(_norm("final_norm", model.d_model, model.norm))
    if not model.tie_embeddings:
        found |= dict(_linear(HEAD, model.d_model, vocab_size, False, "head"))
    return _adapted(found, config.finetune) if config.finetune.kind == "lora" else found


def _adapted(found: dict[str, Parameter], finetune: Finetune) -> dict[str, Parameter]:
    """Returns the parameters with adapters, and the rest frozen, in few bits where that is asked for."""
    matrices = {name.rpartition(".")[0]: p.shape for name, p in found.items() if p.role in ("matrix", "head")}
    linears = {path: shape for path, shape in matrices.items() if len(shape) == 2 and f"{path}.weight" in found}
    plan = plan_adapters(linears, finetune)
    changed = {}
    for name, parameter in found.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "weight" and path in plan.quantised:
            for part, (shape, spec) in FORMATS[finetune.frozen].declared(parameter.shape, Spec("frozen")).items():
                changed[f"{path}.{part}"] = Parameter(shape, spec.role, spec.dtype)
        else:
            changed[name] = parameter._replace(role="frozen")
        if leaf == "weight" and path in plan.adapted:
            for part, (shape, spec) in adapter(parameter.shape, finetune.rank).items():
                changed[f"{path}.{part}"] = Parameter(shape, spec.role)
    return changed


def matrix_sizes(config: Config) -> int:
    """Returns how many weights of the layers' matrices one token is multiplied with: of routed experts its top_k."""
    found = 0
    for index, layer in enumerate(layer_specs(config.model)):
        visited = layer.mlp.top_k / layer.mlp.experts
        for _, parameter in _block(layer, index):
            if parameter.role == "matrix":
                found += parameter.size * visited if len(parameter.shape) == 3 else parameter.size
    return round(found)


def _block(model: Model, index: int) -> Named:
    for name in NORMS[model.norm.placement]:
        yield from _norm(name, model.d_model, model.norm)
    for name, parameter in ATTENTION[model.attention.kind](model):
        yield f"attention.{name}", parameter
    if model.attention.value_residual and index:
        yield "attention.value_residual.weight", Parameter((2,), "scalar")
    mlp = _moe if model.mlp.kind == "moe" else _dense
    for name, parameter in mlp(model.d_model, model.mlp):
        yield f"mlp.{name}", parameter


def _gqa(model: Model) -> Named:
    attention = model.attention
    queries, keys = attention.n_heads, attention.n_kv_heads
    yield from _linear("q_proj", model.d_model, queries * attention.head_dim, attention.bias)
    yield from _linear("k_proj", model.d_model, keys * attention.head_dim, attention.bias)
    yield from _linear("v_proj", model.d_model, keys * attention.head_dim, attention.bias)
    yield from _around(model, queries, keys, ("attend",))


def _differential(model: Model) -> Named:
    attention = model.attention
    queries, keys = 2 * attention.n_heads, 2 * attention.n_kv_heads
    yield from _linear("q_proj", model.d_model, queries * attention.head_dim, attention.bias)
    yield from _linear("k_proj", model.d_model, keys * attention.head_dim, attention.bias)
    yield from _linear("v_proj", model.d_model, keys * attention.head_dim, attention.bias)
    for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
        yield name, Parameter((attention.head_dim,), "scalar")
    if model.norm.weight != "none":
        yield "head_norm.weight", Parameter((2 * attention.head_dim,), "norm")
    yield from _around(model, queries, keys, ("attend_1", "attend_2"))


def _mla(model: Model) -> Named:
    attention, heads, scaled = model.attention, model.attention.n_heads, model.norm.weight != "none"
    if attention.q_rank:
        yield from _linear("q_down_proj", model.d_model, attention.q_rank, attention.bias)
    if attention.q_rank and scaled:
        yield "q_latent_norm.weight", Parameter((attention.q_rank,), "norm")
    query = attention.q_rank or model.d_model
    yield from _linear("q_up_proj", query, heads * query_width(attention), attention.bias)
    yield from _linear("kv_down_proj", model.d_model, attention.kv_rank, attention.bias)
    if scaled:
        yield "kv_latent_norm.weight", Parameter((attention.kv_rank,), "norm")
    yield from _linear("k_rope_proj", model.d_model, attention.rope_dim, attention.bias)
    yield from _linear("k_up_proj", attention.kv_rank, heads * attention.head_dim, attention.bias)
    yield from _linear("v_up_proj", attention.kv_rank, heads * attention.v_dim, attention.bias)
    yield from _around(model, heads, heads, ("attend",))


ATTENTION = {"gqa": _gqa, "mla": _mla, "differential": _differential}


def output_shape(model: Model) -> tuple[int, int]:
    """Returns (heads, width of one) of what attention gives to its output projection."""
    return model.attention.n_heads, value_shape(model.attention)[1]


def _around(model: Model, queries: int, keys: int, attends: tuple[str, ...]) -> Named:
    """Yields what every kind of attention has: output projection, gate, QK-norms, sinks and T5's tables."""
    attention, (heads, width) = model.attention, output_shape(model)
    yield from _linear("o_proj", heads * width, model.d_model, attention.output_bias)
    if attention.gate != "none":
        gates = heads * (width if attention.gate == "element" else 1)
        yield from _linear("gate.gate_proj", model.d_model, gates, attention.bias)
    if attention.qk_norm == "rmsnorm" and model.norm.weight != "none":
        for name, count in (("q_norm", queries), ("k_norm", keys)):
            times = count if attention.qk_norm_over == "whole" else 1
            yield f"{name}.norm.weight", Parameter((times * attention.head_dim,), "norm")
    for name in attends:
        if attention.sinks:
            yield f"{name}.sinks", Parameter((attention.n_heads,), "scalar")
        if model.position.kind == "t5":
            yield f"{name}.bias.weight", Parameter((model.position.buckets, attention.n_heads), "scalar")


def _dense(d_model: int, mlp: Mlp, hidden: int | None = None, kind: str = "") -> Named:
    hidden = hidden or mlp.hidden
    if (kind or mlp.kind) in GATED:
        yield from _linear("gate_proj", d_model, hidden, mlp.bias)
    yield from _linear("up_proj", d_model, hidden, mlp.bias)
    yield from _linear("down_proj", hidden, d_model, mlp.bias)


def _moe(d_model: int, mlp: Mlp) -> Named:
    yield from _linear("router", d_model, mlp.experts, mlp.router_bias)
    if mlp.balance_bias:
        yield "balance", Parameter((mlp.experts,), "balance")
    for name, parameter in _dense(d_model, mlp, kind=mlp.expert):
        yield name, parameter._replace(shape=(mlp.experts, *parameter.shape))
    if mlp.shared_experts:
        for name, parameter in _dense(d_model, mlp, mlp.shared_experts * mlp.hidden, mlp.expert):
            yield f"shared.{name}", parameter


def _linear(name: str, d_in: int, d_out: int, bias: bool, role: str = "matrix") -> Named:
    yield f"{name}.weight", Parameter((d_in, d_out), role)
    if bias:
        yield f"{name}.bias", Parameter((d_out,), "bias")


def _norm(name: str, width: int, norm: Norm) -> Named:
    if norm.kind == "dyt":
        yield f"{name}.alpha", Parameter((1,), "scalar")
    if norm.kind == "dyt" or norm.weight != "none":
        yield f"{name}.weight", Parameter((width,), "norm")
    if norm.kind in ("layernorm", "dyt") and norm.bias:
        yield f"{name}.bias", Parameter((width,), "bias")
