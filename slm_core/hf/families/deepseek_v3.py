"""DeepSeek-V3 (DeepSeek-AI 2024, https://arxiv.org/abs/2412.19437): multi-head latent attention, and mixtures of
experts that are balanced without a loss."""

import math
from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.config.widths import query_width
from slm_core.hf.examples import TINY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import NORMS, mlp_rules, norm_rules, outer_rules, read_model, write_model
from slm_core.hf.families.mixtral import read_expert
from slm_core.hf.families.qwen3_moe import mixture_of, sparse_or_dense_rules, with_mixtures, write_hidden
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rope import rope_parameters, write_rope, yarn_scale
from slm_core.hf.rules import (
    TRANSPOSED,
    Layout,
    Rule,
    fused,
    half_split,
    linear,
    norm,
    split,
    split_heads,
    tensor,
    then,
)

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(129280),
    "hidden_size": whole(7168),
    "intermediate_size": whole(18432),
    "num_hidden_layers": whole(61),
    "num_attention_heads": whole(128),
    "num_key_value_heads": whole(128, null=True),
    "max_position_embeddings": whole(4096),
    "qk_head_dim": whole(None),
    "qk_nope_head_dim": whole(128),
    "qk_rope_head_dim": whole(64),
    "v_head_dim": whole(128),
    "q_lora_rank": whole(1536, null=True),
    "kv_lora_rank": whole(512),
    "moe_intermediate_size": whole(2048),
    "n_routed_experts": whole(256),
    "n_shared_experts": whole(1, low=0),
    "num_experts_per_tok": whole(8),
    "n_group": whole(8),
    "topk_group": whole(4),
    "first_k_dense_replace": whole(3, low=0),
    "norm_topk_prob": flag(True),
    "routed_scaling_factor": number(2.5),
    "rope_interleave": flag(True),
    "scoring_func": word("sigmoid"),
    "topk_method": word("noaux_tc"),
    "moe_layer_freq": whole(1),
}
ALIASES = {"num_local_experts": "n_routed_experts"}
NEUTRAL = (
    "aux_loss_alpha", "ep_size", "num_mtp_layers", "num_nextn_predict_layers", "output_router_logits", "seq_aux",
)  # fmt: skip
"""Training and the layers that predict a second token."""
ONLY = {
    "attention_bias": False, "mlp_bias": False, "rope_interleave": True, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "moe_layer_freq": 1,
}  # fmt: skip
"""{field: the only value that can be expressed}"""
LATENT_EPS = 1e-6
"""The class's epsilon in the norms of latents, whatever rms_norm_eps is."""
BALANCE_STEP = 0.001
"""mlp.balance_bias in the paper; config.json does not have it."""


def read(fields: Fields) -> Config:
    for name, value in ONLY.items():
        fields.only(name, value)
    first, count = fields.get("first_k_dense_replace"), fields.get("num_hidden_layers")
    model = with_values(read_model(fields), {"attention": read_attention(fields)})
    model, layers = with_mixtures(model, _read_mixture(fields), [i >= first for i in range(count)])
    return imported(model, layers, fields.get("max_position_embeddings"))


def read_attention(fields: Fields) -> Attention:
    """Reads the latent attention that DeepSeek-V2 and V3 share."""
    heads, head_dim = fields.get("num_attention_heads"), fields.get("qk_nope_head_dim")
    rope_dim = fields.get("qk_rope_head_dim")
    if fields.get("num_key_value_heads") is not None:
        fields.only("num_key_value_heads", heads)
    # The class makes these two itself, and reads another value if there is one.
    for name, width in {"head_dim": rope_dim, "qk_head_dim": head_dim + rope_dim}.items():
        if fields.given(name):
            fields.only(name, width)
    attention = Attention(
        kind="mla",
        n_heads=heads,
        head_dim=head_dim,
        q_rank=fields.get("q_lora_rank"),
        kv_rank=fields.get("kv_lora_rank"),
        rope_dim=rope_dim,
        v_dim=fields.get("v_head_dim"),
    )
    rope = rope_parameters(fields)
    if rope["rope_type"] == "default" or not rope.get("mscale_all_dim"):
        return attention
    temperature = yarn_scale(rope["factor"], rope["mscale_all_dim"])
    return with_values(attention, {"scale": (head_dim + rope_dim) ** -0.5 * temperature**2})


def _read_mixture(fields: Fields) -> Mlp:
    return Mlp(
        kind="moe",
        hidden=fields.get("moe_intermediate_size"),
        expert=read_expert(fields),
        experts=fields.get("n_routed_experts"),
        top_k=fields.get("num_experts_per_tok"),
        shared_experts=fields.get("n_shared_experts"),
        router="sigmoid",
        groups=fields.get("n_group"),
        top_groups=fields.get("topk_group"),
        renormalise=fields.get("norm_topk_prob"),
        routed_scale=fields.get("routed_scaling_factor"),
        balance_loss=0.0,
        balance_bias=BALANCE_STEP,
    )


def write(config: Config) -> dict[str, Any]:
    mixture = mixture_of(layer_specs(config.model))
    return write_latent(config) | {
        "n_group": mixture.groups,
        "topk_group": mixture.top_groups if mixture.groups > 1 else 1,
        "norm_topk_prob": mixture.renormalise,
        "num_nextn_predict_layers": 0,
    }


def write_latent(config: Config) -> dict[str, Any]:
    """Writes the fields that DeepSeek-V2 and V3 share."""
    layers = layer_specs(config.model)
    attention, mixture = layers[0].attention, mixture_of(layers)
    return {
        **write_model(config),
        **write_hidden(layers),
        "num_key_value_heads": attention.n_heads,
        "head_dim": attention.rope_dim,  # what the class makes of it
        "q_lora_rank": attention.q_rank,
        "kv_lora_rank": attention.kv_rank,
        "qk_nope_head_dim": attention.head_dim,
        "qk_rope_head_dim": attention.rope_dim,
        "v_head_dim": attention.v_dim,
        "rope_parameters": _write_rope(layers[0], config.data.seq_len),
        "first_k_dense_replace": next((i for i, layer in enumerate(layers) if layer.mlp.kind == "moe"), len(layers)),
        "n_routed_experts": mixture.experts,
        "num_experts_per_tok": mixture.top_k,
        "n_shared_experts": mixture.shared_experts,
        "routed_scaling_factor": mixture.routed_scale,
    }


def _write_rope(layer: LayerSpec, context: int) -> dict[str, Any]:
    """Writes the rotation. A scale of scores other than 1 / sqrt(width) becomes a temperature of scaled rotation."""
    written, attention = write_rope(layer, context), layer.attention
    if written.get("factor", 1.0) <= 1:
        return written
    temperature = attention.scale**0.5 * query_width(attention) ** 0.25
    multiplier = round((temperature - 1) / (0.1 * math.log(written["factor"])), 9)
    return written | {"mscale_all_dim": multiplier} if multiplier else written


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from latent_rules(layer, f"layers.{i}.attention", f"model.layers.{i}.self_attn")
        yield from _mlp_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, NORMS)


def latent_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    """Yields the rules of latent attention."""
    attention = layer.attention
    heads, rope = attention.n_heads, attention.rope_dim
    queries = then(TRANSPOSED, half_split(heads, query_width(attention), rope, attention.head_dim))
    # A latent s times as large, normed with s^2 eps, is the latent normed with eps.
    larger = (layer.norm.eps / LATENT_EPS) ** 0.5
    if attention.q_rank:
        yield from linear(f"{path}.q_down_proj", f"{hf_path}.q_a_proj", layout=then(TRANSPOSED, times(larger)))
        yield from norm(f"{path}.q_latent_norm", f"{hf_path}.q_a_layernorm")
    yield from linear(f"{path}.q_up_proj", f"{hf_path}.{'q_b_proj' if attention.q_rank else 'q_proj'}", layout=queries)
    turned = then(TRANSPOSED, half_split(1, attention.kv_rank + rope, rope, attention.kv_rank))
    down = then(then(turned, split([attention.kv_rank, rope])), times(larger, 1.0))
    yield from fused([f"{path}.kv_down_proj", f"{path}.k_rope_proj"], f"{hf_path}.kv_a_proj_with_mqa", down)
    yield from norm(f"{path}.kv_latent_norm", f"{hf_path}.kv_a_layernorm")
    up = then(TRANSPOSED, split_heads(heads, [attention.head_dim, attention.v_dim]))
    yield from fused([f"{path}.k_up_proj", f"{path}.v_up_proj"], f"{hf_path}.kv_b_proj", up)
    yield from linear(f"{path}.o_proj", f"{hf_path}.o_proj")


def times(*factors: float) -> Layout:
    """Multiplies each array of the checkpoint by a factor."""
    return Layout(
        lambda arrays: [array * factor for array, factor in zip(arrays, factors, strict=True)],
        lambda arrays: [array / factor for array, factor in zip(arrays, factors, strict=True)],
    )


def _mlp_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    yield from sparse_or_dense_rules(layer, path, hf_path)
    if layer.mlp.kind == "moe":
        yield from tensor(f"{path}.balance", f"{hf_path}.gate.e_score_correction_bias")
        if layer.mlp.shared_experts:
            yield from mlp_rules(layer, f"{path}.shared", f"{hf_path}.shared_experts")


def unused(config: Config) -> tuple[str, ...]:
    """Returns the place of the layer that predicts a second token, and of shared experts without a width."""
    layers = layer_specs(config.model)
    empty = [i for i, layer in enumerate(layers) if not layer.mlp.shared_experts]
    return f"model.layers.{len(layers)}.", *(f"model.layers.{i}.mlp.shared_experts." for i in empty)


TINY_LATENT = TINY | {
    "num_key_value_heads": 4, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1,
    "pad_token_id": None,
}  # fmt: skip
EXAMPLES = {
    "": TINY_LATENT | {"q_lora_rank": None, "n_group": 1, "topk_group": 1},
    "groups, latent queries, yarn, tied": TINY_LATENT | {
        "num_hidden_layers": 4, "q_lora_rank": 16, "n_group": 4, "topk_group": 2, "n_shared_experts": 2,
        "first_k_dense_replace": 2, "routed_scaling_factor": 1.7, "tie_word_embeddings": True,
        "rope_parameters": TINY_YARN | {"mscale": 1.5, "mscale_all_dim": 0.8},
    },
    "no shared expert, linear scaling, gelu": TINY_LATENT | {
        "q_lora_rank": 16, "n_group": 2, "topk_group": 1, "n_shared_experts": 0, "first_k_dense_replace": 0,
        "norm_topk_prob": False, "rope_parameters": TINY_LINEAR | {"mscale_all_dim": 0.5}, "hidden_act": "gelu",
    },
}  # fmt: skip

DEEPSEEK_V3 = Family(
    "deepseek_v3", "DeepseekV3ForCausalLM", FIELDS, read, write, rules, unused=unused, aliases=ALIASES, neutral=NEUTRAL,
    examples=EXAMPLES,
)  # fmt: skip
