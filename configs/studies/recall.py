"""Which attention, with which positions, recalls values by their keys? The variants of attention.py on a task."""

from configs.studies.attention import VARIANTS


def get_study() -> dict:
    return {
        "question": "Which attention, with which positions, learns to recall the values of four keys?",
        "config": "configs/tasks.py:mqar",
        "variants": VARIANTS,
        "overrides": {"model.attention.n_heads": 8},
        "match": "parameters",
    }
