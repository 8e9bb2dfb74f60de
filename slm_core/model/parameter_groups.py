"""Sorts parameters into groups by role: each has a learning rate multiplier and a weight decay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from slm_core.config import Config, Optim
from slm_core.model.initialization import Spec
from slm_core.model.mup import lr_multiplier

DECAYS: dict[str, Callable[[Optim], bool]] = {
    "matrix": lambda optim: True,  # between activations inside the model
    "head": lambda optim: True,  # from the last activation to the logits
    "embedding": lambda optim: optim.decay_embeddings,
    "norm": lambda optim: optim.decay_norms,
    "bias": lambda optim: optim.decay_biases,
    "head_bias": lambda optim: optim.decay_biases,  # of the logits, whose number does not follow the width
    "scalar": lambda optim: False,  # a few learned numbers: sinks, mixing weights, biases by distance
    "balance": lambda optim: False,  # a mixture's routing bias, which no optimizer updates
    "frozen": lambda optim: False,  # stays as it is: no gradient, no optimizer
}
"""{role: whether weight decay applies to the parameters of that role}."""


@dataclass(frozen=True)
class ParameterGroup:
    """The learning rate multiplier and the weight decay of a parameter.

    Args:
      role: see `Spec`.
      lr_multiplier: the parameter moves with the learning rate lr * lr_multiplier.
      decay: the parameter decays by p <- p (1 - lr * decay).
    """

    role: str
    lr_multiplier: float = 1.0
    decay: float = 0.0


def parameter_groups(specs: Mapping[str, Spec], config: Config) -> dict[str, ParameterGroup]:
    """Makes {name: group} of the parameters that the optimizer updates: none of role "balance" or "frozen"."""
    return {
        name: ParameterGroup(spec.role, lr_multiplier(spec.role, config), weight_decay(spec.role, config.optim))
        for name, spec in specs.items()
        if spec.role not in ("balance", "frozen")
    }


def weight_decay(role: str, optim: Optim) -> float:
    """Returns the weight decay of the parameters of a role."""
    return optim.weight_decay if DECAYS[role](optim) else 0.0


def balance_steps(specs: Mapping[str, Spec]) -> dict[str, float]:
    """Lists {name: step} of the parameters of role "balance": an update moves them by this amount."""
    return {name: spec.step for name, spec in specs.items() if spec.role == "balance"}
