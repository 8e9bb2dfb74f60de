"""Stops a run whose numbers are not finite, before one of them can reach a checkpoint."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.runs.progress import Progress

_PARTS = ("attention_norm", "attention", "attention_output_norm", "mlp_norm", "mlp", "mlp_output_norm")
"""The parts of a layer, in the order of the forward pass."""

Newest = Callable[[], Path | None]
"""Finds the newest checkpoint, after the save under way has ended."""


def stop_if_diverged(
    metrics: Mapping[str, float],
    progress: Progress,
    config: Config,
    newest: Newest,
    details: Callable[[], Mapping[str, float]],
) -> None:
    """Raises UserError if an update's loss or gradient is not finite, or if too many updates were skipped.

    Args:
      metrics: of `Engine.fetch`.
      progress: of the run, that update included.
      config: of the run.
      newest: called only to name what is kept.
      details: measures the update as `Engine.details`; called only to say where it is not finite.
    """
    excused = metrics["skipped"] and metrics["loss_scale"] > 1  # without a scale, skipping does not help the loss
    bad = [name for name in ("loss", "grad_norm") if not math.isfinite(metrics[name])]
    if bad and not excused:
        problem = f"{bad[0]} became {metrics[bad[0]]}"
        remedy = "lower optim.lr, or set optim.clip_norm"
    elif progress.skipped_in_row >= config.precision.max_skipped_in_a_row:
        problem = f"{progress.skipped_in_row} updates in a row had gradients that are not finite"
        remedy = "lower optim.lr, or use a wider precision.compute"
    else:
        return
    place = first_not_finite(details())
    raise UserError(f"optim.lr={config.optim.lr}: {problem} at step {progress.step}{place}; {remedy} ({_kept(newest)})")


def first_not_finite(details: Mapping[str, float]) -> str:
    """Says where numbers stop to be finite: in the forward pass, or else in the backward pass, or "".

    Args:
      details: of `Engine.details`.
    """
    kinds: dict[str, list[str]] = {"activation_rms": [], "gradient_norm": []}
    for name, value in details.items():
        kind, _, place = name.partition("/")
        if kind in kinds and not math.isfinite(value):
            kinds[kind].append(place)
    if kinds["activation_rms"]:
        return f" (the first activation that is not finite is that of {min(kinds['activation_rms'], key=_order)})"
    if kinds["gradient_norm"]:
        return f" (the first gradient that is not finite is that of {max(kinds['gradient_norm'], key=_order)})"
    return ""


def _order(place: str) -> tuple[float, int]:
    """Returns where a place comes in the forward pass: by layer, and in a layer attention, MLP, stream."""
    words = place.split(".")
    if words[0] != "layers":
        return (-1.0 if words[0].startswith("embed") else math.inf), 0
    return float(words[1]), _PARTS.index(words[2]) if len(words) > 2 and words[2] in _PARTS else len(_PARTS)


def stop_if_not_finite(parameter: str, step: int, lr: float, newest: Newest) -> None:
    """Raises UserError in place of a checkpoint whose parameters are not finite: an update may be too large for them.

    Args:
      parameter: of `Engine.non_finite_parameter`.
      step: completed updates.
      lr: optim.lr.
      newest: called only to name what is kept.
    """
    if parameter:
        raise UserError(
            f"optim.lr={lr}: {parameter} is not finite after step {step}, so it is not saved; lower optim.lr, or set"
            f" optim.clip_norm ({_kept(newest)})"
        )


def _kept(newest: Newest) -> str:
    good = newest()
    return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
