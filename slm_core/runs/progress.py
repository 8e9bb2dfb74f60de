"""The position of a run in its training."""

import msgspec

from slm_core.json_files import Count


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """The loop's own state, which a checkpoint keeps beside the engine's state and the data's position."""

    step: Count = 0  # completed updates
    tokens: Count = 0  # trained on so far
    skipped: Count = 0  # updates that the loss scaler has not applied so far
    skipped_in_row: Count = 0
    eval_loss: float | None = None  # of the last evaluation, nats per token; None also if it is not finite
    eval_accuracy: float | None = None  # of the last evaluation: share of the targets with the largest logit
