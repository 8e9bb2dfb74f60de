"""The fields that published checkpoints have in config.json are all known."""

import pytest

from slm_core.config.validation import validate
from slm_core.hf.importing import config_of

COMMON = {
    "_name_or_path": "x", "architectures": ["X"], "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
    "use_cache": True, "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 512,
}  # fmt: skip
LLAMA = COMMON | {
    "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": True, "attention_dropout": 0.0,
}  # fmt: skip
GEMMA = LLAMA | {
    "attention_bias": False, "head_dim": 32, "hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid",
    "hidden_activation": "gelu_pytorch_tanh", "pad_token_id": 0, "query_pre_attn_scalar": 256, "sliding_window": 512,
    "attn_logit_softcapping": None, "final_logit_softcapping": None, "unsloth_fixed": True,
}  # fmt: skip
PUBLISHED = {
    "SmolLM2": LLAMA | {
        "model_type": "llama", "attention_bias": False, "mlp_bias": False, "is_llama_config": True, "pretraining_tp": 1,
        "rope_interleaved": False, "rope_scaling": None, "pad_token_id": 2, "transformers.js_config": {"dtype": "q4"},
    },
    "Llama 3.2": LLAMA | {
        "model_type": "llama", "eos_token_id": [128001, 128008], "head_dim": 64, "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
    "Mistral": LLAMA | {"model_type": "mistral", "sliding_window": 4096, "head_dim": None},
    "Qwen3": LLAMA | {
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "max_window_layers": 28, "rope_scaling": None,
        "sliding_window": None, "use_sliding_window": False,
    },
    "Qwen3 MoE": LLAMA | {
        "model_type": "qwen3_moe", "attention_bias": False, "head_dim": 128, "max_window_layers": 48,
        "sliding_window": None, "use_sliding_window": False, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "moe_intermediate_size": 96, "norm_topk_prob": True, "num_experts": 8, "num_experts_per_tok": 2,
        "output_router_logits": False, "router_aux_loss_coef": 0.001, "rope_scaling": None,
    },
    "SmolLM3": LLAMA | {
        "model_type": "smollm3", "attention_bias": False, "layer_types": ["full_attention"] * 4, "mlp_bias": False,
        "max_window_layers": 28, "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0], "pad_token_id": 3,
        "pretraining_tp": 2, "rope_scaling": None, "sliding_window": None, "use_sliding_window": False,
    },
    "OLMo 2": LLAMA | {"model_type": "olmo2", "attention_bias": False, "pad_token_id": 3, "rope_scaling": None},
    "Gemma 2": GEMMA | {
        "model_type": "gemma2", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
    },
    "Gemma 3": GEMMA | {
        "model_type": "gemma3_text", "_sliding_window_pattern": 6, "sliding_window_pattern": 6, "rope_scaling": None,
        "rope_local_base_freq": 10000.0, "use_bidirectional_attention": False,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "Mixtral": LLAMA | {
        "model_type": "mixtral", "num_experts_per_tok": 2, "num_local_experts": 8, "output_router_logits": False,
        "router_aux_loss_coef": 0.02, "sliding_window": None,
    },
    "Moonlight": LLAMA | {
        "model_type": "deepseek_v3", "auto_map": {"AutoConfig": "x"}, "aux_loss_alpha": 0.001, "ep_size": 1,
        "first_k_dense_replace": 1, "kv_lora_rank": 16, "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_group": 1,
        "n_routed_experts": 8, "n_shared_experts": 2, "norm_topk_prob": True, "num_experts_per_tok": 2,
        "num_nextn_predict_layers": 0, "pretraining_tp": 1, "q_lora_rank": None, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "routed_scaling_factor": 2.446, "scoring_func": "sigmoid", "seq_aux": True,
        "topk_group": 1, "topk_method": "noaux_tc", "v_head_dim": 16, "num_key_value_heads": 4, "rope_scaling": None,
        "attention_bias": False,
    },
    "gpt-oss": LLAMA | {
        "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 2, "head_dim": 16, "pad_token_id": 3,
        "initial_context_length": 4096, "num_experts_per_tok": 2, "num_local_experts": 4, "output_router_logits": False,
        "router_aux_loss_coef": 0.9, "sliding_window": 128, "swiglu_limit": 7.0, "rope_theta": 150000,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
            "rope_type": "yarn", "truncate": False,
        },
    },
    "DistilGPT-2": COMMON | {
        "model_type": "gpt2", "_num_labels": 1, "activation_function": "gelu_new", "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "layer_norm_epsilon": 1e-5, "n_ctx": 1024,
        "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 1024, "resid_pdrop": 0.1,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "n_inner": None, "reorder_and_upcast_attn": False,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    },
    "Pythia": COMMON | {
        "model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 64, "intermediate_size": 256,
        "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "num_attention_heads": 4, "num_hidden_layers": 2,
        "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "use_parallel_residual": True,
        "classifier_dropout": 0.1, "hidden_dropout": 0.0, "attention_dropout": 0.0, "rope_scaling": None,
    },
    "BLOOM": COMMON | {
        "model_type": "bloom", "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "hidden_dropout": 0.0, "n_embed": 64,
        "masked_softmax_fusion": True, "n_inner": None, "n_layer": 2, "num_attention_heads": 4, "offset_alibi": 100,
        "pad_token_id": 3, "pretraining_tp": 2, "seq_length": 2048, "skip_bias_add": True, "skip_bias_add_qkv": False,
        "unk_token_id": 0, "layer_norm_epsilon": 1e-5,
    },
    "MPT": COMMON | {
        "model_type": "mpt", "d_model": 64, "emb_pdrop": 0, "embedding_fraction": 1.0, "expansion_ratio": 4,
        "init_config": {"name": "kaiming_normal_"}, "init_device": "cpu", "learned_pos_emb": True, "logit_scale": None,
        "max_seq_len": 2048, "n_heads": 4, "n_layers": 2, "no_bias": True, "norm_type": "low_precision_layernorm",
        "resid_pdrop": 0, "tokenizer_name": "x", "verbose": 0, "auto_map": {"AutoConfig": "x"}, "attn_config": {
            "alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0, "clip_qkv": None,
            "attn_type": "multihead_attention", "attn_uses_sequence_id": False, "prefix_lm": False, "qk_ln": False,
            "softmax_scale": None,
        },
    },
}  # fmt: skip
"""{models: the fields of their config.json, with small sizes}."""


@pytest.mark.parametrize("models", PUBLISHED)
def test_a_published_config_is_read(models):
    validate(config_of(PUBLISHED[models]).config)
