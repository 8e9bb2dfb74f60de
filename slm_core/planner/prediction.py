"""The planner's answer: the bytes of an update at its peak, by part."""

import dataclasses
from dataclasses import dataclass

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")
"""The parts of an update."""


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
      snapshot: on a CPU, the copy of the state that a checkpoint is written from while updates go on. A GPU's is in the
        host's memory, which is not planned.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    snapshot: int = 0

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    @property
    def update(self) -> int:
        """What the update itself takes."""
        return self.total - self.snapshot
