"""EXAONE 4.0 (LG AI Research 2025, https://arxiv.org/abs/2507.11407): norms on outputs, and queries and keys normed per
head. If some layers have a window, the others have no position."""

from functools import partial
from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import ROOMY, TINY, TINY_LLAMA3
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import read_model, rules, write_model
from slm_core.hf.families.olmo2 import NORMS
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, listed, number, whole
from slm_core.hf.layer_types import SLIDING, read_layer_types, read_windows, write_layer_types
from slm_core.hf.rope import write_rope

WINDOW = 4096
"""The class's own sliding_window."""
FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(102400),
    "intermediate_size": whole(16384),
    "num_key_value_heads": whole(32),
    "rms_norm_eps": number(1e-5),
    "sliding_window": whole(WINDOW, low=2, null=True),
    "sliding_window_pattern": whole(4, low=0, null=True),
    "layer_types": listed(),
}


def read(fields: Fields) -> Config:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    window, pattern = fields.get("sliding_window"), fields.get("sliding_window_pattern")
    if fields.get("layer_types") is None and not (window and pattern):
        raise UserError(
            f"config.json: sliding_window={window} and sliding_window_pattern={pattern} do not say which layers have a"
            " window: set layer_types"
        )
    types = read_layer_types(fields, lambda i: (i + 1) % pattern != 0)
    layers = read_windows(types, window)
    if window is not None:
        layers = [
            layer if kind == SLIDING else {"position.kind": "none"} for layer, kind in zip(layers, types, strict=True)
        ]
    model = with_values(read_model(fields), {"attention.qk_norm": "rmsnorm", "norm.placement": "output"})
    if window is not None and SLIDING not in types:
        model = with_values(model, {"position": Position(kind="none")})
    return imported(model, layers, fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layers, types = layer_specs(config.model), write_layer_types(config)
    turning = next((layer for layer in layers if layer.position.kind == "rope"), None)
    if turning is None:
        types["sliding_window"] = WINDOW
    rope = {"rope_parameters": write_rope(turning, config.data.seq_len)} if turning else {}
    return write_model(config) | types | rope


EXAMPLES = {
    "": TINY | {"sliding_window": None, "layer_types": ["full_attention"] * 2},
    "windows, llama3 scaling, tied, gelu": ROOMY | {
        "sliding_window": 8, "sliding_window_pattern": 3, "rope_parameters": TINY_LLAMA3, "tie_word_embeddings": True,
        "hidden_act": "gelu",
    },
}  # fmt: skip

EXAONE4 = Family("exaone4", "Exaone4ForCausalLM", FIELDS, read, write, partial(rules, norms=NORMS), examples=EXAMPLES)
