"""Llama: RoPE, RMSNorm, SwiGLU, grouped-query attention, tied embeddings (Touvron 2023, Dubey 2024)."""

from ml_collections import ConfigDict

from slm_core.config import Attention, Config, Data, Model, Optim, Train
from slm_core.config.conversion import to_config_dict
from slm_core.config.presets import choose


def tiny() -> Config:
    """2 layers, 64 wide, 2 key/value heads, bytes: for tests (115,008 parameters)"""
    return Config(
        model=Model(d_model=64, n_layers=2, attention=Attention(n_heads=4, n_kv_heads=2)),
        data=Data(seq_len=32),
        optim=Optim(lr=3e-3, warmup_steps=5),
        train=Train(
            steps=30, batch_size=4, eval_every=10, eval_batches=2, checkpoint_every=10, log_every=5,
            sample_every=0, sample_tokens=32,
        ),
    )  # fmt: skip


def llama_60m() -> Config:
    """12 layers, 576 wide, 9 heads of 64, 3 key/value heads, context 1024, BPE of 32,768 (61,356,096 parameters)"""
    return _large(Model(d_model=576, n_layers=12, attention=Attention(n_heads=9, n_kv_heads=3)), 32_768, lr=1e-3)


def llama_100m() -> Config:
    """12 layers, 768 wide, 12 heads of 64, 4 key/value heads, context 1024, BPE of 32,768 (100,682,496 parameters)"""
    return _large(Model(d_model=768, n_layers=12, attention=Attention(n_heads=12, n_kv_heads=4)), 32_768, lr=6e-4)


def llama_135m() -> Config:
    """30 layers, 576 wide, 9 heads of 64, 3 key/value heads, context 1024, BPE of 49,152 (134,515,008 parameters)"""
    model = Model(d_model=576, n_layers=30, attention=Attention(n_heads=9, n_kv_heads=3))
    return _large(model, 49_152, lr=6e-4)


def _large(model: Model, vocab_size: int, lr: float) -> Config:
    """A model for a card of 6 GB: what memory.limit_gb leaves room for is chosen when the run starts."""
    return Config(
        model=model,
        data=Data(tokenizer="bpe", vocab_size=vocab_size, seq_len=1024),
        optim=Optim(lr=lr, warmup_steps=500),
        train=Train(
            steps=20_000, batch_size=64, micro_batch_size=8, eval_every=500, eval_batches=50,
            checkpoint_every=500, sample_every=1000,
        ),
    )  # fmt: skip


VARIANTS = {"tiny": tiny, "60m": llama_60m, "100m": llama_100m, "135m": llama_135m}


def get_config(variant: str = "tiny") -> ConfigDict:
    return to_config_dict(choose(VARIANTS, variant))
