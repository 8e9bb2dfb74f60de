"""The position of a run in its training."""

from dataclasses import dataclass


@dataclass
class Progress:
    """The loop's own state, which a checkpoint keeps beside the engine's state and the data's position."""

    step: int = 0  # completed updates
    tokens: int = 0  # trained on so far
    skipped: int = 0  # updates that the loss scaler has not applied so far
    skipped_in_row: int = 0
    eval_loss: float | None = None  # of the last evaluation, nats per token; None also if it is not finite
    eval_accuracy: float | None = None  # of the last evaluation: share of the targets with the largest logit
