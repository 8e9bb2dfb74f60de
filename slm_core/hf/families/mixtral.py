"""Mixtral (Jiang et al. 2024, https://arxiv.org/abs/2401.04088): Mistral with a mixture of gated MLPs in each layer."""

from collections.abc import Iterator, Mapping
from typing import Any

from slm_core.config import Config, Mlp
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import NORMS, attention_rules, norm_rules, outer_rules, read_model, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Field, Fields, flag, number, whole
from slm_core.hf.rope import rope_fields
from slm_core.hf.rules import Rule, experts, linear

EXPERT = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu"}
"""{hidden_act: mlp.expert}"""


def routing_fields(top_k: int) -> dict[str, Field]:
    """Returns the fields that the families with a mixture and a balancing loss share. `top_k` is the class's own."""
    return {
        "num_experts_per_tok": whole(top_k),
        "output_router_logits": flag(False),
        "router_aux_loss_coef": number(0.001),
    }


FIELDS = LLAMA_FIELDS | {
    "intermediate_size": whole(14336),
    "num_key_value_heads": whole(8, null=True),
    "max_position_embeddings": whole(131072),
    "rms_norm_eps": number(1e-5),
    "sliding_window": whole(None, low=2),
    "num_local_experts": whole(8),
    **routing_fields(2),
    **rope_fields(1e6),
}
NEUTRAL = ("router_jitter_noise",)
"""Noise in training alone."""
PROJECTIONS = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
"""{linear layer of an expert: its name in a checkpoint}"""


def read(fields: Fields) -> Config:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    mixture = Mlp(
        kind="moe",
        hidden=fields.get("intermediate_size"),
        expert=read_expert(fields),
        experts=fields.get("num_local_experts"),
        top_k=fields.get("num_experts_per_tok"),
        balance_loss=balance_loss(fields),
    )
    values = {"mlp": mixture, "attention.window": fields.get("sliding_window") or 0}
    model = with_values(read_model(fields), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def read_expert(fields: Fields) -> str:
    """Reads mlp.expert. Raises UserError for an activation that a dense MLP has and an expert lacks."""
    return EXPERT[fields.only("hidden_act", *EXPERT)]


def balance_loss(fields: Fields) -> float:
    """Reads mlp.balance_loss. The class adds that loss only if it also returns the router's logits."""
    coefficient = fields.get("router_aux_loss_coef")
    return coefficient if fields.get("output_router_logits") else 0.0


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return {
        **write_model(config),
        **write_routing(layer.mlp),
        "hidden_act": expert_act(layer.mlp),
        "num_local_experts": layer.mlp.experts,
        "sliding_window": layer.attention.window or None,
    }


def write_routing(mlp: Mlp) -> dict[str, Any]:
    """Writes the fields that the families with a mixture and a balancing loss share."""
    return {
        "num_experts_per_tok": mlp.top_k,
        "output_router_logits": mlp.balance_loss > 0,
        "router_aux_loss_coef": mlp.balance_loss,
    }


def expert_act(mlp: Mlp) -> str:
    """Returns the name of the activation of a gated expert; "silu" for any other."""
    names = {value: hf_name for hf_name, value in reversed(EXPERT.items())}
    return names.get(mlp.expert, "silu")


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i)
        yield from mixture_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.block_sparse_moe", PROJECTIONS)
        yield from norm_rules(i, NORMS)


def mixture_rules(layer: LayerSpec, path: str, hf_path: str, linears: Mapping[str, str]) -> Iterator[Rule]:
    """Yields the rules of a router and its experts, whose linear layers are {name: hf_name}."""
    yield from linear(f"{path}.router", f"{hf_path}.gate")
    for name, hf_name in linears.items():
        yield from experts(f"{path}.{name}", f"{hf_path}.experts.{{}}.{hf_name}", layer.mlp.experts)


EXAMPLES = {
    "": TINY | {"num_local_experts": 4},
    "window, linear scaling, tied, gelu": ROOMY | {
        "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 8, "rope_parameters": TINY_LINEAR,
        "tie_word_embeddings": True, "hidden_act": "gelu",
    },
}  # fmt: skip

MIXTRAL = Family(
    "mixtral", "MixtralForCausalLM", FIELDS, read, write, rules, aliases={"num_experts": "num_local_experts"},
    neutral=NEUTRAL, examples=EXAMPLES,
)  # fmt: skip
