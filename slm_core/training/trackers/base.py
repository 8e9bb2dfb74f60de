"""The interface between a run and a tracker."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Protocol

from slm_core.config import Config
from slm_core.config.fields import flatten
from slm_core.errors import UserError

Values = dict[str, bool | int | float | str]
"""{field: value} of hyperparameters, in types that every tracker takes."""


class Tracker(Protocol):
    """Shows one run. It is opened with the run's folder, the updates completed so far, and the hyperparameters."""

    replays: bool  # True: opened at a step above 0, it wants everything up to that step once more

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes numbers of an update, by tags such as "loss/train"."""

    def text(self, step: int, tag: str, text: str) -> None:
        """Takes a text that the model wrote."""

    def close(self) -> None:
        """Ends the report. The run may go on in a later process."""


def hyperparameters(config: Config, framework: str) -> Values:
    """Lists every field of the config, and the twin, as numbers, flags and texts."""
    return {"framework": framework} | {name: _plain(value) for name, value in flatten(config).items()}


def _plain(value: object) -> bool | int | float | str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, (bool, int, float, str)) else "none"


def library(name: str) -> ModuleType:
    """Imports the library of a value of `run.tracker`.

    Raises:
      UserError: it is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = None
    if module is None or not hasattr(module, "init"):  # a folder of that name can be imported, too
        raise UserError(f"run.tracker={name}: the {name} library is missing; install it: uv sync --extra {name}")
    return module
