"""Tiny checkpoints of random numbers, written without a framework."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from slm_core.hf import FAMILIES
from slm_core.hf.shapes import weight_shape

VOCABULARY = 20
_USUAL = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 0.25,
}  # fmt: skip
VALUES = {
    "llama": _USUAL | {"rope_theta": 50.0},
    "mixtral": _USUAL | {"num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3": _USUAL | {"head_dim": 8, "tie_word_embeddings": True},
    "smollm3": _USUAL | {"num_hidden_layers": 4, "tie_word_embeddings": True},
    "olmo2": _USUAL,
    "gemma2": _USUAL | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "final_logit_softcapping": 7.0},
    "gemma3_text": _USUAL | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "num_hidden_layers": 6,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 90.0,
    },
    "qwen3_moe": _USUAL | {
        "head_dim": 8, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "norm_topk_prob": True,
    },
    "gpt2": {
        "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16, "vocab_size": VOCABULARY, "n_inner": 24,
        "layer_norm_epsilon": 0.25, "tie_word_embeddings": False,
    },
    "gpt_neox": {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": VOCABULARY, "max_position_embeddings": 16, "rotary_pct": 0.5, "layer_norm_eps": 0.25,
        "use_parallel_residual": False,
    },
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY, "seq_length": 16},
}  # fmt: skip
"""{model_type: fields of config.json}"""


def write_checkpoint(folder: Path, family: str) -> dict[str, np.ndarray]:
    """Writes config.json and model.safetensors of a family, and returns the tensors."""
    generator, tensors = np.random.default_rng(0), {}
    config = FAMILIES[family].config(VALUES[family])
    for rule in FAMILIES[family].rules(config):
        arrays = [generator.standard_normal(weight_shape(name, config, VOCABULARY)) for name in rule.names]
        tensors |= dict(zip(rule.hf_names, rule.layout.to_hf(arrays), strict=True))
    tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family, **VALUES[family]}))
    save_file(tensors, folder / "model.safetensors")
    return tensors
