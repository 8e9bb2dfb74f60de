"""Qwen2 and Qwen2.5 (Yang et al. 2024, https://arxiv.org/abs/2407.10671 and https://arxiv.org/abs/2412.15115): Llama
with biases of queries, keys and values."""

from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import read_model, rules, write_model
from slm_core.hf.families.qwen3 import FIELDS as QWEN3_FIELDS
from slm_core.hf.families.qwen3 import read_layers
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, whole
from slm_core.hf.layer_types import write_layer_types

FIELDS = QWEN3_FIELDS | {"head_dim": whole(None), "attention_bias": flag(True)}
NEUTRAL = ("use_mrope",)
"""A setting of models that also see."""


def read(fields: Fields) -> Config:
    fields.only("attention_bias", True)
    fields.only("mlp_bias", False)
    model = with_values(read_model(fields), {"attention.output_bias": False})
    return imported(model, read_layers(fields), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    types = write_layer_types(config)
    return {**write_model(config), **types, "use_sliding_window": types["sliding_window"] is not None}


EXAMPLES = {
    "": TINY,
    "windows, yarn, tied, gelu": ROOMY | {
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2, "rope_parameters": TINY_YARN,
        "tie_word_embeddings": True, "hidden_act": "gelu",
    },
}  # fmt: skip

QWEN2 = Family("qwen2", "Qwen2ForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
