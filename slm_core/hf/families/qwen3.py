"""Qwen3 (Yang et al. 2025, https://arxiv.org/abs/2505.09388): Llama with a norm of each head's queries and keys."""

from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, whole
from slm_core.hf.layer_types import read_layer_types, read_window, read_windows, write_layer_types

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(151936),
    "intermediate_size": whole(22016),
    "num_key_value_heads": whole(32, null=True),
    "head_dim": whole(128),
    "max_position_embeddings": whole(32768),
    "use_sliding_window": flag(False),
    "sliding_window": whole(4096, low=2, null=True),
    "max_window_layers": whole(28, low=0),
    "layer_types": listed(),
}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    model = with_values(read_model(fields), {"attention.qk_norm": "rmsnorm"})
    return imported(model, read_layers(fields), fields.get("max_position_embeddings"))


def read_layers(fields: Fields) -> list[dict[str, Any]]:
    """Reads the windows of the layers. Without `layer_types`, the layers from max_window_layers on have one."""
    window, first = read_window(fields), fields.get("max_window_layers")
    types = read_layer_types(fields, lambda i: window is not None and i >= first)
    return read_windows(types, window)


def write(config: Config) -> dict[str, Any]:
    types = write_layer_types(config)
    return {
        **write_model(config),
        **types,
        "use_sliding_window": types["sliding_window"] is not None,
        "attention_bias": attention_bias(layer_specs(config.model)[0]),
    }


EXAMPLES = {
    "": TINY | {"head_dim": 8},
    "windows, linear scaling, tied, biases, tanh": ROOMY | {
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "rope_parameters": TINY_LINEAR,
        "tie_word_embeddings": True, "attention_bias": True, "hidden_act": "gelu_pytorch_tanh",
    },
}  # fmt: skip

QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    examples=EXAMPLES,
)
