"""The optimizers, the parameter groups, the gradients and the learning rates of their tests."""

import numpy as np

from slm_core.config import Optim
from slm_core.model.parameter_groups import ParameterGroup

TOLERANCE = dict(rtol=1e-11, atol=1e-13)
CASES = {
    "adamw": Optim(betas=(0.8, 0.99), eps=1e-3),
    "adamw without momentum": Optim(betas=(0.0, 0.9)),
    "adamw8bit": Optim(kind="adamw8bit", betas=(0.8, 0.99), eps=1e-3, quantised_block=4, quantised_from=15),
    "sgd": Optim(kind="sgd", momentum=0.8),
    "sgd, plain momentum": Optim(kind="sgd", momentum=0.8, nesterov=False),
    "sgd, no momentum": Optim(kind="sgd", momentum=0.0, nesterov=False),
    "lion": Optim(kind="lion", betas=(0.7, 0.95)),
    "muon": Optim(kind="muon", betas=(0.8, 0.99), eps=1e-3, momentum=0.9),
    "muon, spectral": Optim(kind="muon", momentum=0.7, nesterov=False, muon_scale="spectral", newton_schulz_steps=3),
    "adafactor": Optim(kind="adafactor"),
    "adafactor, clipped": Optim(kind="adafactor", decay_power=0.5, clip_rms=0.3, min_rms=2.0),
    "schedule_free": Optim(kind="schedule_free", betas=(0.8, 0.99), eps=1e-3),
}
GROUPS = {
    "tall": ParameterGroup("matrix", decay=0.3),
    "wide": ParameterGroup("matrix", lr_multiplier=0.5, decay=0.3),
    "experts": ParameterGroup("matrix"),
    "embed": ParameterGroup("embedding", lr_multiplier=2.0),
    "norm": ParameterGroup("norm"),
}
SHAPES = {"tall": (5, 3), "wide": (3, 5), "experts": (2, 4, 3), "embed": (6, 3), "norm": (3,)}
LEARNING_RATES = [1e-2, 2e-2, 5e-3, 1e-1, 1e-3]


def case(seed: int = 0) -> tuple[dict, list[dict]]:
    """Returns parameters and the gradients of each update; one element never has a gradient."""
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    grads = [{name: rng.standard_normal(shape) for name, shape in SHAPES.items()} for _ in LEARNING_RATES]
    for g in grads:
        g["embed"][1, 2] = 0
    return params, grads
