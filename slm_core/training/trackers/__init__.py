"""The trackers: TensorBoard and others, which show the numbers of metrics.jsonl in a browser.

The files in the run's folder are the truth. A tracker gets a copy, under the same names in each.
"""

from collections.abc import Callable
from pathlib import Path

from slm_core.config import Config
from slm_core.training.trackers.base import Tracker, Values, hyperparameters, library
from slm_core.training.trackers.tensorboard import TensorBoard
from slm_core.training.trackers.trackio import Trackio
from slm_core.training.trackers.wandb import Wandb

TRACKERS: dict[str, Callable[[Path, int, Values], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}
"""{tracker: what opens it for a run}: of `run.tracker`, and TensorBoard, which has a field of its own."""


def tracker_names(config: Config) -> list[str]:
    """Lists the trackers that a config asks for."""
    return ["tensorboard"] * config.run.tensorboard + [config.run.tracker] * (config.run.tracker != "none")


def check_trackers(config: Config) -> None:
    """Raises UserError if the library of `run.tracker` is not installed."""
    if config.run.tracker != "none":
        library(config.run.tracker)


def open_trackers(config: Config, framework: str, folder: Path, step: int) -> list[Tracker]:
    """Opens the trackers of a run.

    Args:
      config: resolved.
      framework: the twin's name.
      folder: the run's.
      step: updates completed so far. What a tracker heard of later ones is void.
    """
    values = hyperparameters(config, framework)
    return [TRACKERS[name](folder, step, values) for name in tracker_names(config)]
