"""Ministral (Mistral AI 2024, Un Ministral, des Ministraux): Mistral in which some layers have the window."""

from typing import Any

from slm_core.config import Config
from slm_core.hf.examples import ROOMY, TINY_YARN
from slm_core.hf.families.llama import read_model, rules, write_model
from slm_core.hf.families.mistral import FIELDS as MISTRAL_FIELDS
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, listed, whole
from slm_core.hf.layer_types import read_layer_types, read_windows, write_layer_types

FIELDS = MISTRAL_FIELDS | {"num_key_value_heads": whole(8), "layer_types": listed()}


def read(fields: Fields) -> Config:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    window = fields.get("sliding_window")
    types = read_layer_types(fields, lambda i: window is not None)
    return imported(read_model(fields), read_windows(types, window), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    return write_model(config) | write_layer_types(config)


EXAMPLES = {
    "windows, yarn, tied, gelu": ROOMY | {
        "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2, "rope_parameters": TINY_YARN,
        "tie_word_embeddings": True, "hidden_act": "gelu",
    },
}  # fmt: skip

MINISTRAL = Family("ministral", "MinistralForCausalLM", FIELDS, read, write, rules, examples=EXAMPLES)
