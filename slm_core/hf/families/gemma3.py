"""Gemma 3 (Gemma Team 2025, https://arxiv.org/abs/2503.19786): Gemma 2 with normed queries and keys in place of the
soft-cap of scores. It has five windowed layers for each full one, and another rotation in each of the two types."""

from functools import partial
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR, TINY_YARN
from slm_core.hf.families.gemma2 import NEUTRAL, NORMS, SHARED, SMALLEST, read_model, write_model
from slm_core.hf.families.llama import rules
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole
from slm_core.hf.layer_positions import OUTER, read_positions, write_positions
from slm_core.hf.layer_types import FULL, SLIDING, read_layer_types, read_windows

THETA = {FULL: 1e6, SLIDING: 10_000.0}
"""{layer type: the class's own rope_theta}"""
FIELDS = {name: field for name, field in SHARED.items() if name not in OUTER} | {
    "vocab_size": whole(262208),
    "max_position_embeddings": whole(131072),
    "attn_logit_softcapping": number(None),
    "final_logit_softcapping": number(None, low=SMALLEST),
    "use_bidirectional_attention": flag(False, null=True),
    "sliding_window_pattern": whole(6),
    "rope_theta": number(THETA[FULL]),
    "rope_local_base_freq": number(THETA[SLIDING]),
}


def read(fields: Fields) -> Config:
    fields.only("attn_logit_softcapping", None)  # the class has the field and applies no cap
    period = fields.get("sliding_window_pattern")
    types = read_layer_types(fields, lambda i: (i + 1) % period != 0)
    windowed = read_windows(types, fields.get("sliding_window"))
    # Before v5, rope_theta and rope_scaling were those of full layers, and rope_local_base_freq that of windowed ones.
    theta = {FULL: fields.get("rope_theta"), SLIDING: fields.get("rope_local_base_freq")}
    position, changes = read_positions(fields, types, theta)
    values = {
        "attention.qk_norm": "rmsnorm",
        "logit_softcap": fields.get("final_logit_softcapping") or 0.0,
    }
    layers = [layer | changed for layer, changed in zip(windowed, changes, strict=True)]
    return imported(with_values(read_model(fields, position), values), layers, fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    return write_model(config) | {"rope_parameters": write_positions(config)}


EXAMPLES = {
    "windows": TINY | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2,
        "pad_token_id": None,
    },
    "two scalings, cap, untied, biases": ROOMY | {
        "query_pre_attn_scalar": 5, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
        "rope_parameters": {"full_attention": TINY_YARN, "sliding_attention": TINY_LINEAR | {"rope_theta": 20.0}},
        "tie_word_embeddings": False, "attention_bias": True,
    },
}  # fmt: skip

GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    FIELDS,
    read,
    write,
    partial(rules, norms=NORMS),
    neutral=(*NEUTRAL, "_sliding_window_pattern"),
    examples=EXAMPLES,
)
