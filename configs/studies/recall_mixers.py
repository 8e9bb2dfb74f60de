"""Which mixer recalls values by their keys, with how large a state? Seven recurrences by three state sizes."""

CORE = ("linear", "retention", "gla", "delta", "gated_delta", "kda", "mamba2")
KEY_DIMS = (4, 8, 16)


def get_study() -> dict:
    return {
        "question": "Which mixer, with how large a state, learns to recall the values of four keys?",
        "config": "configs/tasks.py:mqar",
        "variants": {"attention": {}}
        | {
            f"{kind}, keys of {width}": {
                "model.mixer.kind": kind,
                "model.mixer.n_heads": 2,
                "model.mixer.key_dim": width,
                "model.mixer.value_dim": 32,
                "model.mixer.convolution": 4,  # without one, a value's token cannot see its key
            }
            for kind in CORE
            for width in KEY_DIMS
        },
        "overrides": {
            "model.init_std": 0.125,  # 1 / sqrt(d_model): with 0.02 a delta rule learns nothing for long
            "train.eval_every": 500,
            "run.tensorboard": False,
            "run.threads": 1,
        },
        "frameworks": "flax",  # the faster twin for models so small
    }
