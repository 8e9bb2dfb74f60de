"""What every optimizer is made of: parameters, their groups, and a state by name that a checkpoint can hold."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from slm_core.model.parameter_groups import ParameterGroup


class Optimizer:
    """A kind names its `parts` and defines `update(lr)`, which reads the gradients and may overwrite them.

    `state` is {"PART/NAME": tensor}, of the parameters' shapes and dtype, and "count", the updates done.
    """

    parts: tuple[str, ...] = ()
    averages = False  # whether `evaluated` gives other parameters to evaluate and decode with than those that it trains

    def __init__(self, params: Mapping[str, nn.Parameter], groups: Mapping[str, ParameterGroup]):
        self.params = params
        self.lr_multipliers = [groups[name].lr_multiplier for name in params]
        self.decays = [groups[name].decay for name in params]
        self.state = {f"{part}/{name}": torch.zeros_like(p) for part in self.parts for name, p in params.items()}
        self.state["count"] = torch.zeros((), dtype=torch.int32)

    def grads(self) -> list[Tensor]:
        return [p.grad for p in self.params.values()]

    def part(self, part: str) -> list[Tensor]:
        """Returns the state of one part, in the order of the parameters."""
        return [self.state[f"{part}/{name}"] for name in self.params]

    def decay(self, lr: float) -> None:
        """p <- p (1 - lr decay), wherever a parameter decays."""
        for p, decay in zip(self.params.values(), self.decays, strict=True):
            if decay:
                p.mul_(1 - lr * decay)

    def move(self, steps: Sequence[Tensor], lr: float) -> None:
        """p <- p - lr rate step. Overwrites the steps."""
        torch._foreach_mul_(steps, [-lr * rate for rate in self.lr_multipliers])
        torch._foreach_add_(list(self.params.values()), steps)
