"""Gemma (Gemma Team 2024, https://arxiv.org/abs/2403.08295): Llama with scaled embeddings, GEGLU and norms with
1 + w."""

from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, whole, word

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(256000),
    "hidden_size": whole(3072),
    "intermediate_size": whole(24576),
    "num_hidden_layers": whole(28),
    "num_attention_heads": whole(16),
    "num_key_value_heads": whole(16),
    "head_dim": whole(256),
    "hidden_act": word("gelu_pytorch_tanh"),
    "max_position_embeddings": whole(8192),
    "tie_word_embeddings": flag(True),
    "use_bidirectional_attention": flag(None),
}
NEUTRAL = ("hidden_activation",)
"""The class reads hidden_act."""


def read(fields: Fields) -> Config:
    fields.only("use_bidirectional_attention", False, None)
    fields.only("mlp_bias", False)
    model = read_model(fields)
    values: dict[str, Any] = {"embed_scale": model.d_model**0.5, "norm.weight": "one_plus"}
    if fields.get("hidden_act") == "gelu":
        values["mlp.gelu"] = "tanh"  # what the class makes of the first checkpoints
    return imported(
        with_values(model, values), [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings")
    )


def write(config: Config) -> dict[str, Any]:
    return write_model(config) | {"attention_bias": attention_bias(layer_specs(config.model)[0])}


EXAMPLES = {
    "": TINY | {"head_dim": 8, "hidden_act": "gelu", "pad_token_id": None},
    "linear scaling, untied, biases, silu": ROOMY | {
        "tie_word_embeddings": False, "attention_bias": True, "rope_parameters": TINY_LINEAR, "hidden_act": "silu",
    },
}  # fmt: skip

GEMMA = Family("gemma", "GemmaForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
