"""Writes and reads native checkpoints: one safetensors file of everything that `Engine.export_state` names."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from slm_core.model.weights import Weights, open_safetensors

FILE = "state.safetensors"


def save(folder: Path, state: dict[str, np.ndarray]) -> None:
    """Writes `state` (name: array) into an existing folder."""
    save_file({name: np.asarray(value, order="C") for name, value in state.items()}, folder / FILE)


def open_state(folder: Path) -> Weights:
    """Opens a folder that `save` wrote; an entry is read when it is asked for.

    Raises:
      UserError: the checkpoint is missing or damaged.
    """
    return open_safetensors([folder / FILE], "delete that checkpoint folder")
