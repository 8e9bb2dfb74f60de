"""Stops a run whose numbers are not finite, before one of them can reach a checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path

from slm_core.errors import UserError
from slm_core.runs.checkpoints import latest_checkpoint
from slm_core.runs.progress import Progress

MAX_SKIPPED_IN_A_ROW = 50
"""Updates that the loss scaler may skip one after another: 50 halvings take any usable scale to nothing."""


def stop_if_diverged(metrics: Mapping[str, float], progress: Progress, lr: float, checkpoints: Path) -> None:
    """Raises UserError if an update's loss or gradient is not finite, or if too many updates were skipped.

    Args:
      metrics: of `Engine.fetch`.
      progress: of the run, that update included.
      lr: optim.lr.
      checkpoints: folder of the run's checkpoints.
    """
    excused = metrics["skipped"] and metrics["loss_scale"] > 1  # without a scale, skipping does not help the loss
    bad = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics[name])]
    if bad and not excused:
        problem = f"{bad[0]} became {metrics[bad[0]]}"
        remedy = "lower optim.lr, or set optim.clip_norm"
    elif progress.skipped_in_row >= MAX_SKIPPED_IN_A_ROW:
        problem = f"{progress.skipped_in_row} updates in a row had gradients that are not finite"
        remedy = "lower optim.lr, or use a wider precision.compute"
    else:
        return
    raise UserError(f"optim.lr={lr}: {problem} at step {progress.step}; {remedy} ({_kept(checkpoints)})")


def stop_if_not_finite(parameter: str, step: int, lr: float, checkpoints: Path) -> None:
    """Raises UserError in place of a checkpoint whose parameters are not finite: an update may be too large for them.

    Args:
      parameter: of `Engine.non_finite_parameter`.
      step: completed updates.
      lr: optim.lr.
      checkpoints: folder of the run's checkpoints.
    """
    if parameter:
        raise UserError(
            f"optim.lr={lr}: {parameter} is not finite after step {step}, so it is not saved; lower optim.lr, or set"
            f" optim.clip_norm ({_kept(checkpoints)})"
        )


def _kept(checkpoints: Path) -> str:
    good = latest_checkpoint(checkpoints)
    return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
