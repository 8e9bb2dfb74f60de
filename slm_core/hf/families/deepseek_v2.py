"""DeepSeek-V2 (DeepSeek-AI 2024, https://arxiv.org/abs/2405.04434): multi-head latent attention, and mixtures of
experts with a softmax router and shared experts."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Mlp
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import TINY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families.deepseek_v3 import FIELDS as DEEPSEEK_V3_FIELDS
from slm_core.hf.families.deepseek_v3 import latent_rules, read_attention, write_latent
from slm_core.hf.families.llama import NORMS, mlp_rules, norm_rules, outer_rules, read_model
from slm_core.hf.families.mixtral import read_expert
from slm_core.hf.families.qwen3_moe import sparse_or_dense_rules, with_mixtures
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rules import Rule

V3_ALONE = ("n_group", "topk_group", "rope_interleave")
FIELDS = {name: field for name, field in DEEPSEEK_V3_FIELDS.items() if name not in V3_ALONE} | {
    "vocab_size": whole(102400),
    "hidden_size": whole(4096),
    "intermediate_size": whole(11008),
    "num_hidden_layers": whole(32),
    "num_attention_heads": whole(32),
    "num_key_value_heads": whole(None),
    "max_position_embeddings": whole(2048),
    "moe_intermediate_size": whole(1407),
    "n_routed_experts": whole(64),
    "n_shared_experts": whole(2),
    "num_experts_per_tok": whole(None),
    "first_k_dense_replace": whole(0, low=0),
    "norm_topk_prob": flag(False, null=True),
    "routed_scaling_factor": number(1.0),
    "scoring_func": word("softmax"),
    "topk_method": word("greedy"),
}
ALIASES = {"num_experts": "n_routed_experts"}
NEUTRAL = ("aux_loss_alpha", "ep_size", "n_group", "output_router_logits", "seq_aux", "topk_group")
"""Training; and groups of experts, which are not read if the best of all experts are chosen."""
ONLY = {
    "attention_bias": (False,), "mlp_bias": (False,), "scoring_func": ("softmax",), "topk_method": ("greedy",),
    "moe_layer_freq": (1,), "norm_topk_prob": (False, None),
}  # fmt: skip
"""{field: the only values that can be expressed}"""


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    for name, values in ONLY.items():
        fields.only(name, *values)
    first, count = fields.get("first_k_dense_replace"), fields.get("num_hidden_layers")
    model = with_values(read_model(fields), {"attention": read_attention(fields)})
    model, layers = with_mixtures(model, _read_mixture(fields), [i >= first for i in range(count)])
    return imported(model, layers, fields.get("max_position_embeddings"))


def _read_mixture(fields: Fields) -> Mlp:
    if fields.get("num_experts_per_tok") is None:
        raise UserError("config.json: num_experts_per_tok of a deepseek_v2 model is not set: restore the file")
    return Mlp(
        kind="moe",
        hidden=fields.get("moe_intermediate_size"),
        expert=read_expert(fields),
        experts=fields.get("n_routed_experts"),
        top_k=fields.get("num_experts_per_tok"),
        shared_experts=fields.get("n_shared_experts"),
        renormalise=False,
        routed_scale=fields.get("routed_scaling_factor"),
        balance_loss=0.0,
    )


def write(config: Config) -> dict[str, Any]:
    written = write_latent(config)
    return written | {"n_shared_experts": max(1, written["n_shared_experts"])}  # the class has one at least


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        path, hf_path = f"layers.{i}", f"model.layers.{i}"
        yield from latent_rules(layer, f"{path}.attention", f"{hf_path}.self_attn")
        yield from sparse_or_dense_rules(layer, f"{path}.mlp", f"{hf_path}.mlp")
        if layer.mlp.kind == "moe":
            yield from mlp_rules(layer, f"{path}.mlp.shared", f"{hf_path}.mlp.shared_experts")
        yield from norm_rules(i, NORMS)


TINY_LATENT = TINY | {
    "num_key_value_heads": 4, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "moe_intermediate_size": 24, "n_routed_experts": 5, "num_experts_per_tok": 2,
}  # fmt: skip
EXAMPLES = {
    "": TINY_LATENT | {"q_lora_rank": None, "first_k_dense_replace": 1},
    "latent queries, yarn, tied": TINY_LATENT | {
        "num_hidden_layers": 3, "q_lora_rank": 16, "n_shared_experts": 1, "routed_scaling_factor": 1.7,
        "tie_word_embeddings": True, "rope_parameters": TINY_YARN | {"mscale": 1.5, "mscale_all_dim": 0.8},
    },
    "linear scaling, gelu": TINY_LATENT | {
        "q_lora_rank": 16, "first_k_dense_replace": 0, "rope_parameters": TINY_LINEAR | {"mscale_all_dim": 0.5},
        "hidden_act": "gelu",
    },
}  # fmt: skip

DEEPSEEK_V2 = Family(
    "deepseek_v2", "DeepseekV2ForCausalLM", FIELDS, read, write, rules, aliases=ALIASES, neutral=NEUTRAL,
    examples=EXAMPLES,
)  # fmt: skip
