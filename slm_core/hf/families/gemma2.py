"""Gemma 2 (Gemma Team 2024, https://arxiv.org/abs/2408.00118): Llama with norms on both sides of attention and MLP,
scaled embeddings, GEGLU, soft-caps, and a window in every other layer."""

import dataclasses
from functools import partial
from typing import Any

from slm_core.config import Config, Model
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.families.llama import attention_bias, hidden_act, read_mlp, rules
from slm_core.hf.families.llama import read_model as read_llama
from slm_core.hf.families.llama import write_model as write_llama
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.layer_types import read_layer_types, read_windows, write_layer_types

WINDOW = 4096
"""The class's own sliding_window."""
NORMS = {
    "attention_norm": "input_layernorm",
    "attention_output_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_output_norm": "post_feedforward_layernorm",
}


def read(fields: Fields) -> Config:
    caps = {
        "attention.softcap": fields.explicit("attn_logit_softcapping", 50.0) or 0.0,
        "logit_softcap": fields.explicit("final_logit_softcapping", 30.0) or 0.0,
    }
    types = read_layer_types(fields, lambda i: i % 2 == 0)
    layers = read_windows(types, fields.explicit("sliding_window", WINDOW))
    return imported(with_values(read_model(fields), caps), layers, fields.need("max_position_embeddings"))


def read_model(fields: Fields) -> Model:
    """Reads the fields that Gemma 2 and 3 share."""
    fields.divides("num_attention_heads", "hidden_size")
    fields.only("use_bidirectional_attention", False)
    fields.only("mlp_bias", False)
    model = read_llama(fields, tied=True, head_dim=256)
    model = dataclasses.replace(model, mlp=read_mlp(fields, "hidden_activation", "gelu_pytorch_tanh"))
    values = {
        "embed_scale": model.d_model**0.5,
        "attention.scale": fields.get("query_pre_attn_scalar", 256) ** -0.5,
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


GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", read, write, partial(rules, norms=NORMS))
