"""Lists tiny models of every family, with every option of it that changes the function.

Windows, and the original contexts of rotary scaling, are shorter than the batch that is compared.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A transformers config class and its arguments; `name` begins with the model_type."""

    name: str
    config: str
    values: dict[str, Any]
    float64: bool = False  # the class computes in float64 throughout

    @property
    def family(self) -> str:
        return self.name.partition(",")[0]


_COMMON = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_YARN = {
    "rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
    "beta_slow": 0.5,
}  # fmt: skip
_LINEAR = {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0}
_ROOMY = _COMMON | {"head_dim": 12, "num_hidden_layers": 4, "rms_norm_eps": 1e-3, "pad_token_id": None}
_EXPERTS = {"moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2}
_LATENT = _COMMON | {
    "num_key_value_heads": 4, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 3, "first_k_dense_replace": 1,
    "pad_token_id": None,
}  # fmt: skip
_NEOX = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5},
}  # fmt: skip

CASES = (
    Case("llama", "LlamaConfig", _COMMON | {"rms_norm_eps": 1e-3}),
    Case("llama, llama3 scaling, tied, biases", "LlamaConfig", _COMMON | {
        "rope_parameters": _LLAMA3, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
        "head_dim": 12,
    }),
    Case("mistral", "MistralConfig", _COMMON | {"sliding_window": None}),
    Case("mistral, window, yarn, tied, gelu", "MistralConfig", _ROOMY | {
        "sliding_window": 8, "rope_parameters": _YARN, "tie_word_embeddings": True, "hidden_act": "gelu",
    }),
    Case("qwen3", "Qwen3Config", _COMMON | {"head_dim": 8}),
    Case("qwen3, windows, linear scaling, tied, biases, tanh", "Qwen3Config", _ROOMY | {
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "rope_parameters": _LINEAR,
        "tie_word_embeddings": True, "attention_bias": True, "hidden_act": "gelu_pytorch_tanh",
    }),
    Case("smollm3", "SmolLM3Config", _COMMON | {
        "num_hidden_layers": 5, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "pad_token_id": None,
    }),
    Case("smollm3, windows, llama3 scaling, untied, biases", "SmolLM3Config", _ROOMY | {
        "no_rope_layers": [0, 1, 1, 0], "use_sliding_window": True, "sliding_window": 8, "rope_parameters": _LLAMA3,
        "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True,
    }),
    Case("smollm3, windows of turning layers", "SmolLM3Config", _ROOMY | {
        "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }),
    Case("olmo2", "Olmo2Config", _COMMON | {"pad_token_id": None}),
    Case("olmo2, yarn, tied, biases", "Olmo2Config", _ROOMY | {
        "rope_parameters": _YARN | {"attention_factor": 1.3}, "tie_word_embeddings": True, "attention_bias": True,
    }),
    Case("gemma2, no caps, no windows", "Gemma2Config", _COMMON | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None,
        "layer_types": ["full_attention"] * 2, "pad_token_id": None,
    }),
    Case("gemma2, caps, windows, untied, biases, linear scaling, exact gelu", "Gemma2Config", _ROOMY | {
        "query_pre_attn_scalar": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "tie_word_embeddings": False, "attention_bias": True, "rope_parameters": _LINEAR, "hidden_activation": "gelu",
    }),
    Case("gemma3_text, windows", "Gemma3TextConfig", _COMMON | {
        "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8, "sliding_window_pattern": 2,
        "pad_token_id": None,
    }),
    Case("gemma3_text, two scalings, cap, untied, biases", "Gemma3TextConfig", _ROOMY | {
        "query_pre_attn_scalar": 5, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
        "rope_parameters": {"full_attention": _YARN, "sliding_attention": _LINEAR | {"rope_theta": 20.0}},
        "tie_word_embeddings": False, "attention_bias": True,
    }),
    Case("mixtral", "MixtralConfig", _COMMON | {"num_local_experts": 4}),
    Case("mixtral, window, linear scaling, tied, gelu", "MixtralConfig", _ROOMY | {
        "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 8, "rope_parameters": _LINEAR,
        "tie_word_embeddings": True, "hidden_act": "gelu",
    }),
    Case("qwen3_moe", "Qwen3MoeConfig", _COMMON | _EXPERTS),
    Case("qwen3_moe, dense layers, window, yarn, tied, biases", "Qwen3MoeConfig", _ROOMY | _EXPERTS | {
        "num_hidden_layers": 6, "mlp_only_layers": [3], "decoder_sparse_step": 2, "norm_topk_prob": True,
        "use_sliding_window": True, "sliding_window": 8, "rope_parameters": _YARN, "tie_word_embeddings": True,
        "attention_bias": True, "hidden_act": "gelu",
    }),
    Case("deepseek_v3", "DeepseekV3Config", _LATENT | {"q_lora_rank": None, "n_group": 1, "topk_group": 1}),
    Case("deepseek_v3, groups, latent queries, yarn, tied", "DeepseekV3Config", _LATENT | {
        "num_hidden_layers": 4, "q_lora_rank": 16, "n_group": 4, "topk_group": 2, "n_shared_experts": 2,
        "first_k_dense_replace": 2, "routed_scaling_factor": 1.7, "tie_word_embeddings": True,
        "rope_parameters": _YARN | {"mscale": 1.5, "mscale_all_dim": 0.8},
    }),
    Case("deepseek_v3, no shared expert, linear scaling, gelu", "DeepseekV3Config", _LATENT | {
        "q_lora_rank": 16, "n_group": 2, "topk_group": 1, "n_shared_experts": 0, "first_k_dense_replace": 0,
        "norm_topk_prob": False, "rope_parameters": _LINEAR | {"mscale_all_dim": 0.5}, "hidden_act": "gelu",
    }),
    Case("gpt_oss", "GptOssConfig", _COMMON | {
        "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "layer_types": ["full_attention"] * 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "pad_token_id": None,
    }),
    Case("gpt_oss, windows, yarn, tied", "GptOssConfig", _ROOMY | {
        "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 8, "tie_word_embeddings": True,
        "rope_parameters": _YARN | {"truncate": False},
    }),
    # Experts so narrow get weights so large that their inputs are clipped.
    Case("gpt_oss, clipped, no attention biases, linear", "GptOssConfig", _ROOMY | {
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 12, "attention_bias": False,
        "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
        "rope_parameters": _LINEAR, "intermediate_size": 4,
    }),
    Case("gpt_neox", "GPTNeoXConfig", _NEOX),
    Case("gpt_neox, sequential, yarn, tied, no biases, tanh", "GPTNeoXConfig", _NEOX | {
        "use_parallel_residual": False, "rope_parameters": _YARN | {"partial_rotary_factor": 0.5},
        "tie_word_embeddings": True, "attention_bias": False, "hidden_act": "gelu_fast", "layer_norm_eps": 1e-3,
    }),
    Case("gpt_neox, whole heads turn, llama3 scaling, relu2", "GPTNeoXConfig", _NEOX | {
        "rope_parameters": _LLAMA3 | {"partial_rotary_factor": 1.0}, "hidden_act": "relu2",
    }),
    Case("bloom", "BloomConfig", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    Case("bloom, untied, six heads", "BloomConfig", {
        "vocab_size": 96, "hidden_size": 48, "n_layer": 3, "n_head": 6, "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
    }),
    Case("mpt", "MptConfig", {"vocab_size": 96, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    Case("mpt, untied, six heads, scale", "MptConfig", {
        "vocab_size": 96, "d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64, "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3, "attn_config": {"softmax_scale": 0.7},
    }),
    Case("gpt2", "GPT2Config", {
        "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64,
    }, float64=True),
)  # fmt: skip
