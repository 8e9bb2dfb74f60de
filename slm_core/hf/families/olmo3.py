"""OLMo 3 (Olmo Team 2025, Olmo 3): OLMo 2 with a window in three of four layers, and a scaled rotation in the rest."""

from functools import partial
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.families.olmo2 import NORMS
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, listed, number, whole
from slm_core.hf.layer_positions import OUTER, read_positions, write_positions
from slm_core.hf.layer_types import FULL, SLIDING, read_layer_types, read_windows, write_layer_types

THETA = 500_000.0
"""The class's own rope_theta. It reads another one for full layers alone."""
WINDOW = 4096
"""The class's own sliding_window."""
FIELDS = {name: field for name, field in LLAMA_FIELDS.items() if name not in OUTER} | {
    "vocab_size": whole(50304),
    "rms_norm_eps": number(1e-5),
    "rope_theta": number(THETA),
    "sliding_window": whole(WINDOW, low=2, null=True),
    "layer_types": listed(),
}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    types = read_layer_types(fields, lambda i: (i + 1) % 4 != 0)
    windowed = read_windows(types, fields.get("sliding_window"))
    position, changes = read_positions(fields, types, {FULL: fields.get("rope_theta"), SLIDING: THETA})
    layers = [layer | changed for layer, changed in zip(windowed, changes, strict=True)]
    values = {"attention.qk_norm": "rmsnorm", "attention.qk_norm_over": "whole", "norm.placement": "output"}
    model = with_values(read_model(fields, position=position), values)
    return imported(model, layers, fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    types = write_layer_types(config)
    return write_model(config) | {
        "layer_types": types["layer_types"],
        "sliding_window": types["sliding_window"] or WINDOW,
        "rope_parameters": write_positions(config),
        "attention_bias": attention_bias(layer_specs(config.model)[0]),
    }


EXAMPLES = {
    "windows": ROOMY | {"sliding_window": 8},
    "windows, two scalings, tied, biases, gelu": ROOMY | {
        "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"full_attention": TINY_YARN, "sliding_attention": TINY_LINEAR | {"rope_theta": 20.0}},
        "tie_word_embeddings": True, "attention_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

OLMO3 = Family("olmo3", "Olmo3ForCausalLM", FIELDS, read, write, partial(rules, norms=NORMS), examples=EXAMPLES)
