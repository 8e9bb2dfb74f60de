"""Maximal update parametrisation, muP (Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8).

What is tuned at model.mup_base_width carries over to any width. Without a base width, every function here changes
nothing.
"""

from slm_core.config import Config, Model

POWERS = {
    "adamw": (1.0, 0.0),
    "adamw8bit": (1.0, 0.0),
    "lion": (1.0, 0.0),
    "schedule_free": (1.0, 0.0),
    "adafactor": (0.5, 0.0),  # its updates already follow the root mean square of a matrix, 1 / sqrt(width)
    "sgd": (0.0, -1.0),
    "muon": (0.5, 0.0),  # an update's largest singular value grows with sqrt(width)
    "muon, spectral": (0.0, 0.0),
}
"""{optimizer: (power for matrices, power for all else)}: the learning rate is multiplied by (base width / width)^power.

Table 8 of the paper gives those of Adam and SGD. The others follow its rule that an update moves every activation by as
much at any width.
"""


def hidden_std(model: Model) -> float:
    """Returns the standard deviation of a matrix inside the model: init_std at the base width.

    It falls with the square root of the width.
    """
    base = model.mup_base_width
    return model.init_std * (base / model.d_model) ** 0.5 if base else model.init_std


def logit_factor(model: Model) -> float:
    """Returns what the logits are multiplied by: logit_multiplier, times the base width over the width."""
    base = model.mup_base_width
    return model.logit_multiplier * (base / model.d_model if base else 1.0)


def lr_multiplier(role: str, config: Config) -> float:
    """Returns what multiplies the learning rate of the parameters of a role."""
    base, optim = config.model.mup_base_width, config.optim
    if not base:
        return 1.0
    kind = "muon, spectral" if optim.kind == "muon" and optim.muon_scale == "spectral" else optim.kind
    of_matrices, of_others = POWERS[kind]
    return (base / config.model.d_model) ** (of_matrices if role == "matrix" else of_others)
