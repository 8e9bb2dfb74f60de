"""Seed-OSS (ByteDance Seed 2025, Seed-OSS Open-Source Models): Llama with biases of queries, keys and values."""

from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, whole

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(155136),
    "intermediate_size": whole(27648),
    "num_hidden_layers": whole(64),
    "num_attention_heads": whole(80),
    "num_key_value_heads": whole(8, null=True),
    "head_dim": whole(128, null=True),
    "max_position_embeddings": whole(524288),
    "attention_bias": flag(True),
    "attention_out_bias": flag(False),
}
NEUTRAL = ("residual_dropout",)
"""Dropout."""


def read(fields: Fields) -> Config:
    model = with_values(read_model(fields), {"attention.output_bias": fields.get("attention_out_bias")})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {
        "attention_bias": layer.attention.bias,
        "attention_out_bias": layer.attention.output_bias,
        "mlp_bias": layer.mlp.bias,
    }


EXAMPLES = {
    "": TINY | {"head_dim": 8, "pad_token_id": None},
    "yarn, tied, other biases, gelu": ROOMY | {
        "rope_parameters": TINY_YARN, "tie_word_embeddings": True, "attention_bias": False, "attention_out_bias": True,
        "mlp_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

SEED_OSS = Family("seed_oss", "SeedOssForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
