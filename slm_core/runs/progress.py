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
    best_step: Count = 0  # of the evaluation with the lowest loss; 0: there was none, or it is not kept
    best_loss: float | None = None  # of that evaluation

    def keep_better(self, step: int) -> None:
        """Remembers the last evaluation, made at a step, if its loss is lower than that of all before."""
        loss = self.eval_loss
        if loss is not None and (self.best_loss is None or loss < self.best_loss):
            self.best_step, self.best_loss = step, loss
