"""Maximal update parametrisation, muP (Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8).

Settings that are tuned at model.mup_base_width carry over to any width. Without a base width, the functions here change
nothing.
"""

from slm_core.config import Config, Model
from slm_core.errors import UserError

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
"""{optimizer: (power for matrices, power for all others)}: lr_multiplier is (base width / width)^power.

Table 8 of the paper gives the powers of Adam and SGD. The others follow its rule: an update moves every activation by
the same amount at any width.
"""


def hidden_std(model: Model) -> float:
    """Computes the initial standard deviation of a matrix inside the model: init_std sqrt(base width / width).

    See Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8.
    """
    base = model.mup_base_width
    return model.init_std * (base / model.d_model) ** 0.5 if base else model.init_std


def logit_factor(model: Model) -> float:
    """Computes the factor of the logits: logit_multiplier (base width / width).

    See Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8.
    """
    base = model.mup_base_width
    return model.logit_multiplier * (base / model.d_model if base else 1.0)


def lr_multiplier(role: str, config: Config) -> float:
    """Computes the learning rate multiplier of a role: (base width / width)^power, with the power of POWERS.

    That of a bias of the logits is 1: its numbers are as many at any width, and each is added to one logit.
    See Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8.

    Raises:
      UserError: POWERS has no line for the optimizer.
    """
    base, optim = config.model.mup_base_width, config.optim
    if not base:
        return 1.0
    kind = "muon, spectral" if optim.kind == "muon" and optim.muon_scale == "spectral" else optim.kind
    if kind not in POWERS:
        raise UserError(
            f"model.mup_base_width={base}: no rule says how optim.kind={kind} scales with the width; add its line to"
            " POWERS of slm_core/model/mup.py"
        )
    if role == "head_bias":
        return 1.0
    of_matrices, of_others = POWERS[kind]
    return (base / config.model.d_model) ** (of_matrices if role == "matrix" else of_others)
