"""Computes the learning rate of every update, as one float64 table that both twins read.

Update k (counted from 0) uses `learning_rates(...)[k]`. Warm-up rises in a straight line, lr * (k + 1) / (warmup_steps
+ 1). So no update has a learning rate of 0, and update number `warmup_steps` is the first at the peak. From there each
schedule gives f, the share of the way from the floor to the peak: lr * (f + min_lr_ratio * (1 - f)). Both ends are
exact, and the last update stands on the floor.
"""

from collections.abc import Callable

import numpy as np

from slm_core.config import Optim


def _fall(since: np.ndarray, length: int) -> np.ndarray:
    """Draws a straight line from 1 (since <= 0) down to 0 (since >= length); all 1 if length is 0."""
    return 1.0 - np.clip(since / max(length, 1), 0.0, 1.0)


def _constant(since: np.ndarray, last: int, decay_steps: int) -> np.ndarray:
    return np.ones_like(since)


def _linear(since: np.ndarray, last: int, decay_steps: int) -> np.ndarray:
    return _fall(since, last)


def _cosine(since: np.ndarray, last: int, decay_steps: int) -> np.ndarray:
    return 0.5 * (1.0 + np.cos(np.pi * (1.0 - _fall(since, last))))


def _wsd(since: np.ndarray, last: int, decay_steps: int) -> np.ndarray:
    length = min(decay_steps, last)  # the decay never reaches back into the warm-up
    return _fall(since - (last - length), length)


SCHEDULES: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "wsd": _wsd,
}
"""{optim.schedule: function that returns f, float64 [steps]}.

Its arguments are the updates done since warm-up (float64 [steps], negative within it), that number at the last update,
and the length of WSD's decay.
"""


def warmup_steps(optim: Optim, steps: int) -> int:
    """Returns the updates of warm-up; if `optim.warmup_steps` is unset, as its line in the schema says."""
    return min(50, steps // 2) if optim.warmup_steps is None else optim.warmup_steps


def learning_rates(optim: Optim, steps: int) -> np.ndarray:
    """Computes the learning rate of each update, float64 [steps].

    If warm-up leaves only one update, that update has the peak learning rate.
    """
    k = np.arange(steps, dtype=np.float64)
    rising = warmup_steps(optim, steps)
    decay_steps = max(1, round(optim.decay_fraction * steps))
    share = SCHEDULES[optim.schedule](k - rising, max(0, steps - 1 - rising), decay_steps)
    after = share + optim.min_lr_ratio * (1.0 - share)
    warmup = (k + 1.0) / (rising + 1.0)
    return optim.lr * np.where(k < rising, warmup, after)
