"""Native checkpoints: an Orbax PyTree of everything that `Engine.export_state` names."""

from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from slm_core.errors import UserError

FOLDER = "state"


def save(folder: Path, state: dict[str, np.ndarray]) -> None:
    """Writes `state` (name: array) into an existing folder."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / FOLDER, state)


def restore(folder: Path) -> dict[str, np.ndarray]:
    """Reads what `save` wrote. Raises UserError when it is missing or damaged."""
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder.absolute() / FOLDER)
    except (OSError, ValueError) as error:
        raise UserError(
            f"checkpoint {folder / FOLDER} cannot be read ({error}): delete that checkpoint folder"
        ) from None
