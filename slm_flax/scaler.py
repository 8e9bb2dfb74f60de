"""Dynamic loss scaling for float16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

The loss is multiplied by `scale` before the backward pass and gradients divided by it after. A non-finite gradient
skips the update and multiplies the scale by `backoff`; `interval` finite updates in a row double it, up to `limit`.
Without float16 the scale stays 1, and a non-finite update is skipped all the same.
"""

import jax.numpy as jnp
from jax import Array

from slm_core.config import Precision

ScalerState = dict[str, Array]


class LossScaler:
    def __init__(self, precision: Precision, active: bool):
        self.active = active
        self.first = precision.loss_scale_init if active else 1.0
        self.interval = precision.loss_scale_growth_interval
        self.backoff = precision.loss_scale_backoff
        self.limit = precision.loss_scale_max

    def init(self) -> ScalerState:
        """Returns {"scale", "good_steps"}."""
        return {"scale": jnp.asarray(self.first, jnp.float32), "good_steps": jnp.zeros((), jnp.int32)}

    def update(self, state: ScalerState, finite: Array) -> ScalerState:
        """Returns the state after an update that was finite, or was not and was skipped."""
        if not self.active:
            return state
        scale, good_steps = state["scale"], state["good_steps"] + 1
        grows = good_steps >= self.interval
        grown = jnp.where(grows, jnp.minimum(scale * 2, self.limit), scale)
        return {
            "scale": jnp.where(finite, grown, jnp.maximum(scale * self.backoff, 1.0)),
            "good_steps": jnp.where(finite & ~grows, good_steps, 0),
        }
