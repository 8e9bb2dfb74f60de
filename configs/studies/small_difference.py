"""Can five seeds see a difference of 0.003 nats? The default preset, with a learning rate 3% higher."""


def get_study() -> dict:
    return {
        "question": "Can five seeds see what a learning rate that is 3% higher changes?",
        "variants": {"lr=0.001": {}, "lr=0.00103": {"optim.lr": 1.03e-3}},
        "seeds": 5,
        "frameworks": "torch",
    }
