"""Which attention, with which positions, recalls values by their keys? The variants of attention.py on a task."""

from configs.studies.attention import VARIANTS

# The latent is as wide as a head: with the default of four heads no width of the MLPs could make the parameters equal.
LATENT = {"model.attention.kv_rank": 32}


def get_study() -> dict:
    return {
        "question": "Which attention, with which positions, learns to recall the values of four keys?",
        "config": "configs/tasks.py:mqar",
        "variants": {
            name: fields | (LATENT if fields.get("model.attention.kind") == "mla" else {})
            for name, fields in VARIANTS.items()
        },
        # With heads of width 8, or initial values of 0.02, no variant gets beyond a guess among the four values.
        "overrides": {
            "model.attention.n_heads": 8,
            "model.attention.head_dim": 32,
            "model.init_std": 0.125,
            "train.steps": 600,
            "train.eval_every": 200,
        },
        "match": "parameters",
    }
