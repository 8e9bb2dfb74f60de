"""Mistral 7B (Jiang et al. 2023, https://arxiv.org/abs/2310.06825): Llama with one sliding window in every layer."""

from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, whole

FIELDS = LLAMA_FIELDS | {
    "intermediate_size": whole(14336),
    "num_key_value_heads": whole(8, null=True),
    "max_position_embeddings": whole(131072),
    "sliding_window": whole(4096, low=2, null=True),
}


def read(fields: Fields) -> Config:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    window = fields.get("sliding_window") or 0
    model = with_values(read_model(fields), {"attention.window": window})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    return write_model(config) | {"sliding_window": layer_specs(config.model)[0].attention.window or None}


EXAMPLES = {
    "": TINY | {"sliding_window": None},
    "window, yarn, tied, gelu": ROOMY | {
        "sliding_window": 8, "rope_parameters": TINY_YARN, "tie_word_embeddings": True, "hidden_act": "gelu",
    },
}  # fmt: skip

MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    examples=EXAMPLES,
)
