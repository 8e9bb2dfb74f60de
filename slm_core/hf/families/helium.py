"""Helium (Kyutai 2025, Helium 1: a modular and multilingual LLM): Llama whose rotary pairs are neighbours."""

from functools import partial
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import TINY, TINY_LINEAR
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole
from slm_core.hf.rope import rope_fields
from slm_core.hf.rules import half_split

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(48000),
    "hidden_size": whole(2560),
    "intermediate_size": whole(7040),
    "num_hidden_layers": whole(24),
    "num_attention_heads": whole(20),
    "num_key_value_heads": whole(20),
    "head_dim": whole(128),
    "max_position_embeddings": whole(4096),
    "rms_norm_eps": number(1e-8),
    **rope_fields(1e5),
}


def read(fields: Fields) -> Config:
    model = with_values(read_model(fields), {"attention.output_bias": False})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {"attention_bias": layer.attention.bias, "mlp_bias": layer.mlp.bias}


EXAMPLES = {
    "": TINY | {"head_dim": 8, "pad_token_id": None},
    "linear scaling, tied, biases, gelu": TINY | {
        "head_dim": 8, "rope_parameters": TINY_LINEAR, "tie_word_embeddings": True, "attention_bias": True,
        "mlp_bias": True, "hidden_act": "gelu", "pad_token_id": None,
    },
}  # fmt: skip

HELIUM = Family("helium", "HeliumForCausalLM", FIELDS, read, write, partial(rules, turn=half_split), examples=EXAMPLES)
