"""gpt-oss (OpenAI 2025, https://arxiv.org/abs/2508.10925): attention with sinks, a window in every other layer, and
mixtures of clipped MLPs; biases everywhere."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Mlp, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import (
    NORMS,
    attention_bias,
    attention_rules,
    norm_rules,
    outer_rules,
    read_model,
    write_model,
)
from slm_core.hf.families.mixtral import balance_loss, routing_fields, write_routing
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, number, whole
from slm_core.hf.layer_types import read_layer_types, read_windows, write_layer_types
from slm_core.hf.rope import completed, read_rope, rope_fields, rope_parameters, whole_heads
from slm_core.hf.rules import EVERY_OTHER, SAME, Rule, linear, tensor

WINDOW = 128
"""The class's own sliding_window."""
YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
"""The class's own rope_parameters."""
FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(201088),
    "hidden_size": whole(2880),
    "intermediate_size": whole(2880),
    "num_hidden_layers": whole(36),
    "num_attention_heads": whole(64),
    "num_key_value_heads": whole(8, null=True),
    "head_dim": whole(64, null=True),
    "max_position_embeddings": whole(131072),
    "rms_norm_eps": number(1e-5),
    "attention_bias": flag(True),
    "sliding_window": whole(WINDOW, low=2, null=True),
    "layer_types": listed(),
    "num_local_experts": whole(128),
    "swiglu_alpha": number(1.702),
    "swiglu_limit": number(7.0),
    **routing_fields(4),
    **rope_fields(150_000.0),
}
ALIASES = {"num_experts": "num_local_experts"}
NEUTRAL = ("experts_per_token", "initial_context_length")
"""Repetitions of other fields."""


def read(fields: Fields) -> Config:
    fields.only("swiglu_alpha", 1.702)
    fields.only("swiglu_limit", 7.0)
    mixture = Mlp(
        kind="moe",
        hidden=fields.get("intermediate_size"),
        bias=True,
        expert="clipped_swiglu",
        experts=fields.get("num_local_experts"),
        top_k=fields.get("num_experts_per_tok"),
        router_bias=True,
        balance_loss=balance_loss(fields),
    )
    values = {
        "attention.sinks": True,
        "mlp": mixture,
    }
    model = with_values(read_model(fields, position=_read_position(fields)), values)
    types = read_layer_types(fields, lambda i: i % 2 == 0)
    layers = read_windows(types, fields.get("sliding_window"))
    return imported(model, layers, fields.get("max_position_embeddings"))


def _read_position(fields: Fields) -> Position:
    rope = rope_parameters(fields)
    if not fields.get("rope_scaling") and fields.get("rope_parameters") is None:
        rope = completed(rope | YARN, fields.get("max_position_embeddings"))
    whole_heads(rope)
    return Position(**read_rope(rope))


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


EXAMPLES = {
    "": TINY | {
        "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "layer_types": ["full_attention"] * 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "pad_token_id": None,
    },
    "windows, yarn, tied": ROOMY | {
        "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 8, "tie_word_embeddings": True,
        "rope_parameters": TINY_YARN | {"truncate": False},
    },
    # Experts so narrow get weights so large that their inputs are clipped.
    "clipped, no attention biases, linear": ROOMY | {
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 12, "attention_bias": False,
        "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
        "rope_parameters": TINY_LINEAR, "intermediate_size": 4,
    },
}  # fmt: skip

GPT_OSS = Family(
    "gpt_oss",
    "GptOssForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    aliases=ALIASES,
    neutral=NEUTRAL,
    examples=EXAMPLES,
)
