"""What does pairing leave of the noise? Six changes of a small model with 20 seeds, for docs/statistics.md."""

from configs.studies.itself import SMALL


def get_study() -> dict:
    return {
        "question": "How much of the noise of a difference does pairing remove?",
        "variants": {
            "baseline": {},
            "no weight decay": {"optim.weight_decay": 0.0},
            "LayerNorm": {"model.norm.kind": "layernorm"},
            "QK-norm": {"model.attention.qk_norm": "rmsnorm"},
            "squared ReLU": {"model.mlp.kind": "relu2"},
            "one key head": {"model.attention.n_kv_heads": 1},
            "learned positions": {"model.position.kind": "learned"},
        },
        "overrides": SMALL,
        "seeds": 20,
        "frameworks": "torch",
    }
