"""GLM-4 (Team GLM 2024, https://arxiv.org/abs/2406.12793), and GLM-4-0414, which has norms on both sides: Llama with
partial rotation of pairs that are neighbours, and fused MLPs."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families import llama
from slm_core.hf.families.llama import attention_rules, norm_rules, outer_rules, read_model, write_model
from slm_core.hf.families.phi3 import fused_mlp_rules
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole
from slm_core.hf.rope import read_partial, rope_fields, rope_parameters, write_partial
from slm_core.hf.rules import Rule, half_split

FIELDS = llama.FIELDS | {
    "vocab_size": whole(151552),
    "intermediate_size": whole(13696),
    "num_hidden_layers": whole(40),
    "num_key_value_heads": whole(2),
    "head_dim": whole(128),
    "max_position_embeddings": whole(131072),
    "rms_norm_eps": number(0.00000015625),
    "attention_bias": flag(True),
    **rope_fields(share=0.5),
}
NORMS = {
    "attention_norm": "input_layernorm",
    "attention_output_norm": "post_self_attn_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp_output_norm": "post_mlp_layernorm",
}


def read(fields: Fields, placement: str) -> Config:
    fields.only("mlp_bias", False)
    position = Position(**read_partial(rope_parameters(fields), fields.get("head_dim")))
    values = {"attention.output_bias": False, "norm.placement": placement}
    model = with_values(read_model(fields, position=position), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {
        "attention_bias": layer.attention.bias,
        "rope_parameters": write_partial(layer, config.data.seq_len),
    }


def rules(config: Config, norms: Mapping[str, str]) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i, half_split)
        yield from fused_mlp_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, norms)


EXAMPLES = {
    "": TINY | {"head_dim": 8, "pad_token_id": None},
    "yarn, tied, no biases, gelu": ROOMY | {
        "rope_parameters": TINY_YARN | {"partial_rotary_factor": 0.7}, "tie_word_embeddings": True,
        "attention_bias": False, "hidden_act": "gelu",
    },
    "linear scaling, whole heads turn": ROOMY | {"rope_parameters": TINY_LINEAR | {"partial_rotary_factor": 1.0}},
}  # fmt: skip

GLM = Family(
    "glm", "GlmForCausalLM", FIELDS, partial(read, placement="pre"), write, partial(rules, norms=llama.NORMS),
    examples=EXAMPLES,
)  # fmt: skip
GLM4 = Family(
    "glm4", "Glm4ForCausalLM", FIELDS, partial(read, placement="sandwich"), write, partial(rules, norms=NORMS),
    examples=EXAMPLES,
)  # fmt: skip
