"""Which mixer, alone or three to one with attention? Seven recurrences and four hybrids against softmax attention."""

CORE = ("linear", "retention", "gla", "delta", "gated_delta", "kda", "mamba2")
HYBRIDS = ("gla", "gated_delta", "kda", "mamba2")


def get_study() -> dict:
    return {
        "question": "Does a recurrent mixer, or a hybrid of three to one with attention, train as well as attention?",
        "config": "configs/default.py",
        "variants": {"attention": {}}
        | {kind: {"model.mixer.kind": kind} for kind in CORE}
        | {f"3 {kind}, 1 attention": {"model.pattern": f"3*mixer.kind={kind} | ."} for kind in HYBRIDS},
        "overrides": {
            "model.n_layers": 4,
            "train.steps": 300,
            "train.eval_every": 100,
            "run.tensorboard": False,
            "run.threads": 1,
        },
        "match": "parameters",
        "frameworks": "torch",
    }
