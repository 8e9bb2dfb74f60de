"""Lists the architectures of GGUF files that can be imported: how their keys and tensors are those of a family.

Source: llama.cpp's convert_hf_to_gguf.py, which writes such files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SIZES = {
    "context_length": "max_position_embeddings", "embedding_length": "hidden_size", "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
}  # fmt: skip
USUAL = SIZES | {
    "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "rope.freq_base": "rope_theta",
}  # fmt: skip
SCALING = {
    "rope.scaling.type": "rope_type", "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.attn_factor": "attention_factor", "rope.scaling.finetuned": "finetuned",
}  # fmt: skip
"""{key behind the architecture: entry of rope_scaling}"""
WIDTHS = ("attention.value_length", "rope.dimension_count")
"""Keys whose value must be the width of a head."""
UNREAD = ("vocab_size",)
"""Keys that an import reads elsewhere."""
GEMMA = {"attention.sliding_window": "sliding_window", "final_logit_softcapping": "final_logit_softcapping"}
MIXTURE = {"expert_used_count": "num_experts_per_tok"}


@dataclass(frozen=True)
class Architecture:
    """An architecture of llama.cpp.

    Args:
      model_type: the family that it is.
      gguf_name: its name in the gguf package's MODEL_ARCH.
      keys: {key behind the architecture's name: field of config.json}.
      fixed: fields that the architecture implies, and the file does not have.
      pairs: whether queries and keys turn in pairs (0, 1), (2, 3), ..., and not in halves.
      added: what was added to the weights of norms.
      whole_heads: whether rope turns whole heads, so that the keys of WIDTHS are all the width of a head.
      stacked_heads: whether one projection makes all queries, then all keys and values; in the checkpoint, each head's
        own follow each other.
      query_scale_of: {number of layers: the model scales queries by its width per head, and not by a head's width}.
    """

    model_type: str
    gguf_name: str
    keys: Mapping[str, str] = field(default_factory=lambda: USUAL)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    pairs: bool = False
    added: float = 0.0
    whole_heads: bool = True
    stacked_heads: bool = False
    query_scale_of: int = 0


ARCHITECTURES = {
    "llama": Architecture("llama", "LLAMA", pairs=True),
    "qwen3": Architecture("qwen3", "QWEN3"),
    "smollm3": Architecture("smollm3", "SMOLLM3", pairs=True, fixed={"no_rope_layer_interval": 4}),
    "olmo2": Architecture("olmo2", "OLMO2"),
    "gemma2": Architecture(
        "gemma2", "GEMMA2", USUAL | GEMMA | {"attn_logit_softcapping": "attn_logit_softcapping"},
        added=1.0, query_scale_of=46,
    ),
    "gemma3": Architecture(
        "gemma3_text", "GEMMA3", USUAL | GEMMA | {"rope.freq_base_swa": "rope_local_base_freq"},
        {"sliding_window_pattern": 6, "rope_local_base_freq": 10_000.0},
        added=1.0, query_scale_of=62,
    ),
    "qwen3moe": Architecture(
        "qwen3_moe", "QWEN3MOE",
        USUAL | MIXTURE | {"expert_count": "num_experts", "expert_feed_forward_length": "moe_intermediate_size"},
        {"norm_topk_prob": True},
    ),
    "gpt2": Architecture(
        "gpt2", "GPT2",
        {
            "context_length": "n_positions", "embedding_length": "n_embd", "block_count": "n_layer",
            "feed_forward_length": "n_inner", "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
    ),
    "gptneox": Architecture(
        "gpt_neox", "GPTNEOX",
        SIZES | {
            "attention.layer_norm_epsilon": "layer_norm_eps", "use_parallel_residual": "use_parallel_residual",
            "rope.freq_base": "rotary_emb_base",
        },
        whole_heads=False, stacked_heads=True,
    ),
}  # fmt: skip
"""{general.architecture: how it is read}"""
MIXTRAL = Architecture("mixtral", "LLAMA", USUAL | MIXTURE | {"expert_count": "num_local_experts"}, pairs=True)
"""A file of architecture llama with experts."""
