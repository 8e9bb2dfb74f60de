"""Which mixer, alone or three to one with attention, recalls? The variants of mixers.py on associative recall."""

from configs.studies.mixers import CORE, HYBRIDS

STATE = {"model.mixer.n_heads": 2, "model.mixer.key_dim": 16, "model.mixer.value_dim": 32, "model.mixer.convolution": 4}
"""The largest state of recall_mixers.py; without a convolution, a value's token cannot see its key."""

HEADS = {"model.attention.n_heads": 8, "model.attention.head_dim": 32}
"""The heads of recall.py: with its preset's, attention learns nothing from these initial values."""


def mixed_by(kind: str) -> dict:
    return {"model.mixer.kind": kind, **STATE}


def hybrid(kind: str) -> dict:
    fields = ",".join(f"{name.removeprefix('model.')}={value}" for name, value in mixed_by(kind).items())
    return {"model.pattern": f"3*{fields} | .", **HEADS}


def get_study() -> dict:
    return {
        "question": "Does a recurrent mixer, or a hybrid of three to one with attention, recall values by their keys?",
        "config": "configs/tasks.py:mqar",
        "variants": {"attention": HEADS}
        | {kind: mixed_by(kind) for kind in CORE}
        | {f"3 {kind}, 1 attention": hybrid(kind) for kind in HYBRIDS},
        "overrides": {
            "model.n_layers": 4,
            "model.init_std": 0.125,  # 1 / sqrt(d_model), as in recall.py and recall_mixers.py
            "train.eval_every": 250,
            "run.tensorboard": False,
            "run.threads": 1,
        },
        "match": "parameters",
        "frameworks": "flax",  # the faster twin for models so small
    }
