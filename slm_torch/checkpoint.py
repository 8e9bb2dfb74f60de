"""Native checkpoints: one safetensors file of everything that `Engine.export_state` names."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from slm_core.errors import UserError

FILE = "state.safetensors"


def save(folder: Path, state: dict[str, np.ndarray]) -> None:
    """Writes `state` (name: array) into an existing folder."""
    save_file({name: np.asarray(value, order="C") for name, value in state.items()}, folder / FILE)


def restore(folder: Path) -> dict[str, np.ndarray]:
    """Reads what `save` wrote. Raises UserError when it is missing or damaged."""
    try:
        return load_file(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise UserError(f"checkpoint {folder / FILE} cannot be read ({error}): delete that checkpoint folder") from None
