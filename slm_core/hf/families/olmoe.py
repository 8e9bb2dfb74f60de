"""OLMoE (Muennighoff et al. 2024, https://arxiv.org/abs/2409.02060): a mixture of gated MLPs in each layer, and a norm
of all queries, and of all keys, at once."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import TINY, TINY_YARN
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
from slm_core.hf.families.mixtral import expert_act, mixture_rules, routing_fields, write_routing
from slm_core.hf.families.qwen3_moe import PROJECTIONS, read_mixture
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole
from slm_core.hf.rules import Rule

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(50304),
    "hidden_size": whole(2048),
    "intermediate_size": whole(2048),
    "num_hidden_layers": whole(16),
    "num_attention_heads": whole(16),
    "max_position_embeddings": whole(4096),
    "rms_norm_eps": number(1e-5),
    "clip_qkv": number(None),
    "num_experts": whole(64),
    "norm_topk_prob": flag(False),
    **routing_fields(8),
    "router_aux_loss_coef": number(0.01),
}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    fields.only("clip_qkv", None)
    values = {
        "mlp": read_mixture(fields, "intermediate_size"),
        "attention.qk_norm": "rmsnorm",
        "attention.qk_norm_over": "whole",
    }
    model = with_values(read_model(fields), values)
    fields.only("head_dim", None, model.d_model // model.attention.n_heads)  # the width of the class's norms
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return {
        **write_model(config),
        **write_routing(layer.mlp),
        "hidden_act": expert_act(layer.mlp),
        "num_experts": layer.mlp.experts,
        "norm_topk_prob": layer.mlp.renormalise,
        "attention_bias": attention_bias(layer),
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i)
        yield from mixture_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp", PROJECTIONS)
        yield from norm_rules(i, NORMS)


EXAMPLES = {
    "": TINY | {"num_experts": 5, "num_experts_per_tok": 2, "pad_token_id": None},
    "yarn, tied, biases, renormalised, gelu": TINY | {
        "num_experts": 4, "num_experts_per_tok": 3, "norm_topk_prob": True, "rope_parameters": TINY_YARN,
        "tie_word_embeddings": True, "attention_bias": True, "hidden_act": "gelu", "rms_norm_eps": 1e-3,
        "pad_token_id": None,
    },
}  # fmt: skip

OLMOE = Family(
    "olmoe", "OlmoeForCausalLM", FIELDS, read, write, rules, aliases={"num_local_experts": "num_experts"},
    examples=EXAMPLES,
)  # fmt: skip
