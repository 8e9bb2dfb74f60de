"""Parts of the tiny examples of families.

Windows, and the original contexts of rotary scaling, are shorter than the batch that the oracle compares.
"""

TINY = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
TINY_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
TINY_YARN = {
    "rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0,
    "beta_slow": 0.5,
}  # fmt: skip
TINY_LINEAR = {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0}
ROOMY = TINY | {"head_dim": 12, "num_hidden_layers": 4, "rms_norm_eps": 1e-3, "pad_token_id": None}
