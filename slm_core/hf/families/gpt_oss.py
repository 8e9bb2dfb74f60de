"""gpt-oss (OpenAI 2025, https://arxiv.org/abs/2508.10925): attention with sinks, a window in every other layer, and
mixtures of clipped MLPs; biases everywhere."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Mlp, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.families.llama import (
    NORMS,
    attention_bias,
    attention_rules,
    norm_rules,
    outer_rules,
    read_model,
    write_model,
)
from slm_core.hf.families.mixtral import balance_loss, read_experts, write_routing
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.layer_types import read_layer_types, read_windows, write_layer_types
from slm_core.hf.rope import read_rope, rope_parameters
from slm_core.hf.rules import EVERY_OTHER, SAME, Rule, linear, tensor

WINDOW = 128
"""The class's own sliding_window."""
YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
"""The class's own rope_parameters."""


def read(fields: Fields) -> Config:
    fields.only("swiglu_alpha", 1.702)
    fields.only("swiglu_limit", 7.0)
    mixture = Mlp(
        kind="moe",
        hidden=fields.need("intermediate_size"),
        bias=True,
        expert="clipped_swiglu",
        experts=read_experts(fields, 128),
        top_k=fields.get("num_experts_per_tok", 4),
        router_bias=True,
        balance_loss=balance_loss(fields),
    )
    values = {
        "attention.bias": fields.get("attention_bias", True),
        "attention.sinks": True,
        "position": _read_position(fields),
        "mlp": mixture,
    }
    model = with_values(read_model(fields, eps=1e-5, head_dim=64), values)
    types = read_layer_types(fields, lambda i: i % 2 == 0)
    layers = read_windows(types, fields.explicit("sliding_window", WINDOW))
    return imported(model, layers, fields.need("max_position_embeddings"))


def _read_position(fields: Fields) -> Position:
    rope = rope_parameters(fields)
    if not (fields.get("rope_parameters") or fields.get("rope_scaling")):
        rope |= YARN
    return Position(**read_rope(rope, fields.need("max_position_embeddings"), theta=150_000.0))


def write(config: Config) -> dict[str, Any]:
    layer, types = layer_specs(config.model)[0], write_layer_types(config)
    return {
        **write_model(config),
        **write_routing(layer.mlp),
        **types,
        "sliding_window": types["sliding_window"] or WINDOW,  # the class needs one, even if no layer has it
        "num_local_experts": layer.mlp.experts,
        "attention_bias": attention_bias(layer),
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i)
        yield from tensor(f"layers.{i}.attention.attend.sinks", f"model.layers.{i}.self_attn.sinks")
        yield from _mixture_rules(f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, NORMS)


def _mixture_rules(path: str, hf_path: str) -> Iterator[Rule]:
    """Yields the rules of a mixture. A checkpoint has the experts in one tensor, stored [experts, in, out] as here."""
    yield from linear(f"{path}.router", f"{hf_path}.router", bias=True)
    for part, suffix in {"weight": "", "bias": "_bias"}.items():
        gate_up = (f"{path}.gate_proj.{part}", f"{path}.up_proj.{part}")
        yield Rule(gate_up, (f"{hf_path}.experts.gate_up_proj{suffix}",), EVERY_OTHER)
        yield Rule((f"{path}.down_proj.{part}",), (f"{hf_path}.experts.down_proj{suffix}",), SAME)


GPT_OSS = Family("gpt_oss", "GptOssForCausalLM", read, write, rules)
