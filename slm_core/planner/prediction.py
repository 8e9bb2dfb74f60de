"""The planner's answer: the bytes of an update at its peak, by part."""

import dataclasses
from dataclasses import dataclass

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")


@dataclass(frozen=True)
class Prediction:
    """Bytes at the peak of an update.

    Args:
      weights: the parameters, as they are stored.
      gradients: the gradients of the parameters that are trained.
      optimizer: the optimizer's state.
      activations: what the forward pass of all layers keeps for the backward pass.
      logits: the logits and what the loss makes of them.
      workspace: what one operation or one layer needs while it works.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))
