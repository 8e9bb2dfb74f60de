"""How much do runs of one variant differ? One small variant with 200 seeds, for docs/statistics.md."""

SMALL = {
    "model.d_model": 64,
    "model.n_layers": 2,
    "data.seq_len": 64,
    "train.batch_size": 8,
    "train.steps": 100,
    "train.eval_every": 0,
    "train.checkpoint_every": 0,
    "train.sample_every": 0,
    "optim.warmup_steps": 10,
    "run.tensorboard": False,
}
"""A model of 123,200 parameters that trains within seconds."""


def get_study() -> dict:
    return {
        "question": "How much do runs of one variant differ that differ in their seed alone?",
        "variants": {"small": {}},
        "overrides": SMALL,
        "seeds": 200,
        "frameworks": "torch",
    }
