"""Gemma 2 (Gemma Team 2024, https://arxiv.org/abs/2408.00118): Llama with norms on both sides of attention and MLP,
scaled embeddings, GEGLU, soft-caps, and a window in every other layer."""

from functools import partial
from typing import Any

from slm_core.config import Config, Model, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, hidden_act, rules
from slm_core.hf.families.llama import read_model as read_llama
from slm_core.hf.families.llama import write_model as write_llama
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, number, whole, word
from slm_core.hf.layer_types import read_layer_types, read_windows, write_layer_types

WINDOW = 4096
"""The class's own sliding_window."""
SMALLEST = 1e-30
"""The class divides by caps, so 0 is not one."""
SHARED = {name: field for name, field in LLAMA_FIELDS.items() if name != "hidden_act"} | {
    "hidden_size": whole(2304),
    "intermediate_size": whole(9216),
    "num_hidden_layers": whole(26),
    "num_attention_heads": whole(8),
    "num_key_value_heads": whole(4),
    "head_dim": whole(256),
    "hidden_activation": word("gelu_pytorch_tanh"),
    "tie_word_embeddings": flag(True),
    "query_pre_attn_scalar": number(256, low=SMALLEST),
    "sliding_window": whole(WINDOW, low=2, null=True),
    "layer_types": listed(),
}
"""Fields that Gemma 2 and 3 share."""
FIELDS = SHARED | {
    "vocab_size": whole(256000),
    "max_position_embeddings": whole(8192),
    "attn_logit_softcapping": number(50.0, low=SMALLEST, null=True),
    "final_logit_softcapping": number(30.0, low=SMALLEST, null=True),
    "use_bidirectional_attention": flag(None),
}
NEUTRAL = ("hidden_act",)
"""The class reads hidden_activation."""
NORMS = {
    "attention_norm": "input_layernorm",
    "attention_output_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_output_norm": "post_feedforward_layernorm",
}


def read(fields: Fields) -> Config:
    caps = {
        "attention.softcap": fields.get("attn_logit_softcapping") or 0.0,
        "logit_softcap": fields.get("final_logit_softcapping") or 0.0,
    }
    types = read_layer_types(fields, lambda i: i % 2 == 0)
    layers = read_windows(types, fields.get("sliding_window"))
    return imported(with_values(read_model(fields), caps), layers, fields.get("max_position_embeddings"))


def read_model(fields: Fields, position: Position | None = None) -> Model:
    """Reads the fields that Gemma 2 and 3 share."""
    fields.divides("num_attention_heads", "hidden_size")
    fields.only("use_bidirectional_attention", False, None)
    fields.only("mlp_bias", False)
    model = read_llama(fields, "hidden_activation", position)
    values = {
        "embed_scale": model.d_model**0.5,
        "attention.scale": fields.get("query_pre_attn_scalar") ** -0.5,
        "norm.weight": "one_plus",
        "norm.placement": "sandwich",
    }
    return with_values(model, values)


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {"attn_logit_softcapping": layer.attention.softcap or None}


def write_model(config: Config) -> dict[str, Any]:
    """Writes the fields that Gemma 2 and 3 share."""
    layer, types = layer_specs(config.model)[0], write_layer_types(config)
    written = write_llama(config)
    del written["hidden_act"]
    return {
        **written,
        **types,
        "sliding_window": types["sliding_window"] or WINDOW,  # the class needs one, even if no layer has it
        "hidden_activation": hidden_act(layer.mlp),
        "query_pre_attn_scalar": max(1, round(layer.attention.scale**-2)),  # the class takes whole ones only
        "final_logit_softcapping": layer.logit_softcap or None,
        "attention_bias": attention_bias(layer),
    }


EXAMPLES = {
    "no caps, no windows": TINY | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "layer_types": ["full_attention"] * 2, "pad_token_id": None,
    },
    "caps, windows, untied, biases, linear scaling, exact gelu": ROOMY | {
        "query_pre_attn_scalar": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "tie_word_embeddings": False, "attention_bias": True, "rope_parameters": TINY_LINEAR,
        "hidden_activation": "gelu",
    },
}  # fmt: skip

GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    FIELDS,
    read,
    write,
    partial(rules, norms=NORMS),
    neutral=NEUTRAL,
    examples=EXAMPLES,
)
