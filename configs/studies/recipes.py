"""Four disputed choices of published recipes: squared ReLU, Dynamic Tanh, QK-norm, an untied head."""


def get_study() -> dict:
    return {
        "question": "Which of four disputed choices change what a model of one million parameters learns?",
        "variants": {
            "baseline": {},
            "squared ReLU": {"model.mlp.kind": "relu2"},
            "Dynamic Tanh": {"model.norm.kind": "dyt"},
            "QK-norm": {"model.attention.qk_norm": "rmsnorm"},
            "untied": {"model.tie_embeddings": False},
        },
        "overrides": {"train.steps": 300},
        "match": "parameters",
    }
