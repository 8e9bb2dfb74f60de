"""Dynamic loss scaling for float16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

The loss is multiplied by `scale` before the backward pass and gradients divided by it after. A non-finite gradient
skips the update and multiplies the scale by `backoff`; `interval` finite updates in a row double it, up to `limit`.
Without float16 the scale stays 1, and a non-finite update is skipped all the same.
"""

import numpy as np

from slm_core.config import Precision


class LossScaler:
    """`scale` holds a float32: that is what a checkpoint keeps."""

    def __init__(self, precision: Precision, active: bool):
        self.active = active
        self.scale = float(np.float32(precision.loss_scale_init)) if active else 1.0
        self.good_steps = 0
        self.interval = precision.loss_scale_growth_interval
        self.backoff = float(np.float32(precision.loss_scale_backoff))
        self.limit = float(np.float32(precision.loss_scale_max))

    def update(self, finite: bool) -> None:
        """Adjusts the scale after an update that was finite, or was not and was skipped."""
        if not self.active:
            return
        if not finite:
            self.scale, self.good_steps = max(float(np.float32(self.scale * self.backoff)), 1.0), 0
        elif self.good_steps + 1 < self.interval:
            self.good_steps += 1
        else:
            self.scale, self.good_steps = min(self.scale * 2, self.limit), 0
