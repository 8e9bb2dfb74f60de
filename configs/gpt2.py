"""GPT-2: learned positions, LayerNorm, GELU, tied embeddings (Radford 2019)."""

from ml_collections import ConfigDict

from slm_core.config import Attention, Config, Data, Memory, Mlp, Model, Norm, Optim, Position, Train
from slm_core.config.conversion import to_config_dict
from slm_core.config.presets import choose


def tiny() -> Config:
    """2 layers, 64 wide, bytes: for tests (118,528 parameters)"""
    return Config(
        model=_model(d_model=64, n_layers=2, n_heads=4),
        data=Data(seq_len=32),
        optim=Optim(lr=3e-3, warmup_steps=5),
        train=Train(
            steps=30, batch_size=4, eval_every=10, eval_batches=2, checkpoint_every=10, log_every=5,
            sample_every=0, sample_tokens=32,
        ),
    )  # fmt: skip


def gpt2_124m() -> Config:
    """GPT-2 small: 12 layers, 768 wide, context 1024, BPE of 50,257 (124,439,808 parameters)"""
    return Config(
        model=_model(d_model=768, n_layers=12, n_heads=12),
        data=Data(tokenizer="bpe", vocab_size=50257, seq_len=1024),
        optim=Optim(lr=6e-4, warmup_steps=700),
        train=Train(
            steps=20_000, batch_size=64, micro_batch_size=8, eval_every=500, eval_batches=50,
            checkpoint_every=500, sample_every=1000,
        ),
        memory=Memory(remat="block", loss_chunk=1024),
    )  # fmt: skip


def nanogpt_cpu() -> Config:
    """nanoGPT's CPU setting: 4 layers, 128 wide, context 64, characters; needs --config.data.path (804,096 with 65)"""
    return Config(
        model=Model(
            d_model=128,
            n_layers=4,
            init_std=0.05,  # nanoGPT's 0.02 suits a width of 768; here it costs 0.15 nats (docs/benchmarks.md)
            attention=Attention(n_heads=4),
            position=Position(kind="learned"),
            norm=Norm(kind="layernorm"),
            mlp=Mlp(kind="gelu", gelu="erf"),
        ),
        data=Data(source="text", tokenizer="char", seq_len=64, split="tail", val_fraction=0.1),
        optim=Optim(
            lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, decay_embeddings=True, clip_norm=1.0, schedule="cosine",
            warmup_steps=100, min_lr_ratio=0.1,
        ),
        train=Train(
            steps=2000, batch_size=12, eval_every=250, eval_batches=150, checkpoint_every=250, sample_every=500,
        ),
    )  # fmt: skip


def _model(d_model: int, n_layers: int, n_heads: int) -> Model:
    return Model(
        d_model=d_model,
        n_layers=n_layers,
        attention=Attention(n_heads=n_heads, bias=True),
        position=Position(kind="learned"),
        norm=Norm(kind="layernorm", bias=True),
        mlp=Mlp(kind="gelu", gelu="tanh", bias=True),
    )


VARIANTS = {"tiny": tiny, "124m": gpt2_124m, "nanogpt_cpu": nanogpt_cpu}


def get_config(variant: str = "tiny") -> ConfigDict:
    return to_config_dict(choose(VARIANTS, variant))
