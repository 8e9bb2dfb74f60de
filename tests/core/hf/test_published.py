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
GEMMA_1 = {name: value for name, value in GEMMA.items() if "softcap" not in name} | {
    "model_type": "gemma", "hidden_act": "gelu", "rope_scaling": None,
}  # fmt: skip
del GEMMA_1["query_pre_attn_scalar"], GEMMA_1["sliding_window"]
WITHOUT_RMSNORM = {name: value for name, value in LLAMA.items() if name != "rms_norm_eps"}
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
    "Qwen2.5": LLAMA | {
        "model_type": "qwen2", "max_window_layers": 24, "sliding_window": 32768, "use_sliding_window": False,
        "use_mrope": False,
    },
    "Gemma": GEMMA_1,
    "Phi-3": LLAMA | {
        "model_type": "phi3", "attention_bias": False, "auto_map": {"AutoConfig": "x"}, "embd_pdrop": 0.0,
        "original_max_position_embeddings": 4096, "pad_token_id": 3, "resid_pdrop": 0.0, "rope_scaling": None,
        "sliding_window": 2047, "tie_word_embeddings": False,
    },
    "StableLM 2": WITHOUT_RMSNORM | {
        "model_type": "stablelm", "hidden_dropout": 0.0, "layer_norm_eps": 1e-5, "num_key_value_heads": 4,
        "partial_rotary_factor": 0.25, "qk_layernorm": False, "rope_scaling": None, "use_parallel_residual": False,
        "use_qkv_bias": True,
    },
    "Granite 3": LLAMA | {
        "model_type": "granite", "attention_bias": False, "attention_multiplier": 0.015625, "mlp_bias": False,
        "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22, "rope_scaling": None,
        "pad_token_id": 0,
    },
    "OLMo": WITHOUT_RMSNORM | {
        "model_type": "olmo", "attention_bias": False, "clip_qkv": None, "pad_token_id": 1, "rope_scaling": None,
    },
    "OLMo 3": LLAMA | {
        "model_type": "olmo3", "attention_bias": False, "sliding_window": 4096, "tie_word_embeddings": False,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"], "rope_theta": 500000, "rope_scaling": {
            "attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0,
            "original_max_position_embeddings": 8192, "rope_type": "yarn",
        },
    },
    "OLMoE": LLAMA | {
        "model_type": "olmoe", "attention_bias": False, "clip_qkv": None, "norm_topk_prob": False, "num_experts": 8,
        "num_experts_per_tok": 2, "output_router_logits": False, "router_aux_loss_coef": 0.01, "rope_scaling": None,
    },
    "TinyStories": COMMON | {
        "model_type": "gpt_neo", "activation_function": "gelu_new", "attention_dropout": 0, "num_heads": 4,
        "attention_layers": ["global", "local"] * 2, "attention_types": [[["global", "local"], 2]], "num_layers": 4,
        "embed_dropout": 0, "gradient_checkpointing": False, "hidden_size": 64, "intermediate_size": None,
        "layer_norm_epsilon": 1e-5, "max_position_embeddings": 2048, "resid_dropout": 0, "summary_type": "cls_index",
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_use_proj": True, "window_size": 256,
    },
    "StarCoder": COMMON | {
        "model_type": "gpt_bigcode", "activation_function": "gelu_pytorch_tanh", "attention_softmax_in_fp32": True,
        "attn_pdrop": 0.1, "embd_pdrop": 0.1, "inference_runner": 0, "layer_norm_epsilon": 1e-5, "multi_query": True,
        "max_batch_size": None, "max_sequence_length": None, "n_embd": 64, "n_head": 4, "n_inner": 256, "n_layer": 2,
        "n_positions": 1024, "pad_key_length": True, "pre_allocate_kv_cache": False, "resid_pdrop": 0.1,
        "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True, "summary_type": "cls_index",
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_use_proj": True, "validate_runner_input": True,
    },
    "StarCoder 2": WITHOUT_RMSNORM | {
        "model_type": "starcoder2", "embedding_dropout": 0.1, "hidden_act": "gelu_pytorch_tanh", "use_bias": True,
        "mlp_type": "default", "norm_epsilon": 1e-5, "norm_type": "layer_norm", "residual_dropout": 0.1,
        "rope_theta": 999999.4420358813, "sliding_window": 4096,
    },
    "Falcon": COMMON | {
        "model_type": "falcon", "alibi": False, "apply_residual_connection_post_layernorm": False, "bias": False,
        "attention_dropout": 0.0, "auto_map": {"AutoConfig": "x"}, "hidden_dropout": 0.0, "hidden_size": 64,
        "layer_norm_epsilon": 1e-5, "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 4,
        "num_hidden_layers": 2, "parallel_attn": True,
    },
    "Aya": WITHOUT_RMSNORM | {
        "model_type": "cohere", "attention_bias": False, "layer_norm_eps": 1e-5, "logit_scale": 0.0625,
        "pad_token_id": 0, "rope_theta": 10000, "use_qk_norm": False,
    },
    "GLM-4": LLAMA | {
        "model_type": "glm4", "attention_bias": True, "head_dim": 16, "pad_token_id": 3, "partial_rotary_factor": 0.5,
        "tie_word_embeddings": False,
    },
    "EXAONE 4.0": LLAMA | {
        "model_type": "exaone4", "head_dim": 16, "layer_types": ["full_attention"] * 4, "sliding_window": None,
        "sliding_window_pattern": None, "rope_scaling": {
            "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
    "Minitron": WITHOUT_RMSNORM | {
        "model_type": "nemotron", "attention_bias": False, "head_dim": 16, "hidden_act": "relu2", "mlp_bias": False,
        "norm_eps": 1e-5, "partial_rotary_factor": 0.5, "tie_word_embeddings": False,
    },
    "Arcee AFM": LLAMA | {
        "model_type": "arcee", "attention_bias": False, "head_dim": 16, "hidden_act": "relu2", "mlp_bias": False,
        "rope_scaling": {
            "factor": 20.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn",
        },
    },
    "ERNIE 4.5": LLAMA | {"model_type": "ernie4_5", "head_dim": 16, "pad_token_id": 0, "use_bias": False},
    "Helium": LLAMA | {"model_type": "helium", "attention_bias": False, "head_dim": 16, "mlp_bias": False},
    "Seed-OSS": LLAMA | {
        "model_type": "seed_oss", "attention_bias": True, "attention_out_bias": False, "head_dim": 16,
        "mlp_bias": False, "pad_token_id": 1, "residual_dropout": 0.1, "rope_scaling": {"rope_type": "default"},
    },
    "Ministral": LLAMA | {
        "model_type": "ministral", "head_dim": 16, "layer_types": ["full_attention", "sliding_attention"] * 2,
        "sliding_window": 32768,
    },
    "nanochat": LLAMA | {
        "model_type": "nanochat", "attention_bias": False, "final_logit_softcapping": 15.0, "hidden_act": "relu2",
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "tie_word_embeddings": False,
    },
    "DeepSeek-V2 Lite": LLAMA | {
        "model_type": "deepseek_v2", "attention_bias": False, "auto_map": {"AutoConfig": "x"}, "aux_loss_alpha": 0.001,
        "first_k_dense_replace": 1, "kv_lora_rank": 16, "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_group": 1,
        "n_routed_experts": 8, "n_shared_experts": 2, "norm_topk_prob": False, "num_experts_per_tok": 2,
        "num_key_value_heads": 4, "pretraining_tp": 1, "q_lora_rank": None, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "seq_aux": True,
        "topk_group": 1, "topk_method": "greedy", "v_head_dim": 16, "rope_scaling": {
            "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
            "original_max_position_embeddings": 4096, "type": "yarn",
        },
    },
    "Phi-1.5, Phi-2": WITHOUT_RMSNORM | {
        "model_type": "phi", "auto_map": {"AutoConfig": "x"}, "embd_pdrop": 0.0, "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5, "num_key_value_heads": 4, "partial_rotary_factor": 0.5, "qk_layernorm": False,
        "resid_pdrop": 0.1, "rope_scaling": None, "tie_word_embeddings": False,
    },
    "GPT-J": COMMON | {
        "model_type": "gptj", "activation_function": "gelu_new", "attn_pdrop": 0.0, "embd_pdrop": 0.0,
        "gradient_checkpointing": False, "layer_norm_epsilon": 1e-5, "n_embd": 64, "n_head": 4, "n_inner": None,
        "n_layer": 4, "n_positions": 2048, "resid_pdrop": 0.0, "rotary": True, "rotary_dim": 8,
        "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {}, "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer",
    },
    "OPT": COMMON | {
        "model_type": "opt", "_remove_final_layer_norm": False, "activation_dropout": 0.0,
        "activation_function": "relu", "attention_dropout": 0.0, "do_layer_norm_before": True, "dropout": 0.1,
        "enable_bias": True, "ffn_dim": 256, "hidden_size": 64, "init_std": 0.02, "layer_norm_elementwise_affine": True,
        "layerdrop": 0.0, "max_position_embeddings": 2048, "num_attention_heads": 4, "num_hidden_layers": 4,
        "pad_token_id": 1, "prefix": "</s>", "word_embed_proj_dim": 64,
    },
    "Qwen1.5-MoE": LLAMA | {
        "model_type": "qwen2_moe", "decoder_sparse_step": 1, "max_window_layers": 21, "moe_intermediate_size": 32,
        "norm_topk_prob": False, "num_experts": 8, "num_experts_per_tok": 4, "output_router_logits": False,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 128, "sliding_window": 32768,
        "tie_word_embeddings": False, "use_sliding_window": False,
    },
}  # fmt: skip
"""{models: the fields of their config.json, with small sizes}."""


@pytest.mark.parametrize("models", PUBLISHED)
def test_a_published_config_is_read(models):
    validate(config_of(PUBLISHED[models]).config)
