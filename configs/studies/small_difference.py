"""Can five seeds see a difference of 0.003 nats? The default preset, whose learning rate ends 20% higher."""


def get_study() -> dict:
    return {
        "question": "Can five seeds see what a last learning rate that is 20% higher changes?",
        "variants": {"min_lr_ratio=0.1": {}, "min_lr_ratio=0.12": {"optim.min_lr_ratio": 0.12}},
        # One evaluation, at the end, on 409,600 tokens: less text would add noise of its own.
        "overrides": {"train.eval_every": 0, "train.eval_batches": 200},
        "seeds": 5,
        "frameworks": "torch",
    }
