"""Writes and reads native checkpoints: an Orbax PyTree of everything that `Engine.export_state` names."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import orbax.checkpoint as ocp

from slm_core.errors import UserError
from slm_core.model.weights import Lazy, Weights

FOLDER = "state"
Result = TypeVar("Result")


def save(folder: Path, state: dict[str, np.ndarray]) -> None:
    """Writes `state` (name: array) into an existing folder."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / FOLDER, state)


def open_state(folder: Path) -> Weights:
    """Opens a folder that `save` wrote; an entry is read when it is asked for.

    Raises:
      UserError: the checkpoint is missing or damaged.
    """
    path = folder.absolute() / FOLDER
    as_array = ocp.RestoreArgs(restore_type=np.ndarray)

    def read(name: str) -> np.ndarray:
        only = ocp.args.PyTreeRestore(item={name: 0}, restore_args={name: as_array}, partial_restore=True)
        with ocp.PyTreeCheckpointer() as checkpointer:
            return _attempt(folder, lambda: checkpointer.restore(path, args=only)[name])

    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = _attempt(folder, lambda: checkpointer.metadata(path).item_metadata)
    if metadata is None:
        raise _unreadable(folder, "its metadata are damaged")
    return Lazy({name: lambda name=name: read(name) for name in metadata.tree})


def _attempt(folder: Path, read: Callable[[], Result]) -> Result:
    try:
        return read()
    except (OSError, ValueError) as error:
        raise _unreadable(folder, " ".join(str(error).split())[:120]) from None


def _unreadable(folder: Path, reason: str) -> UserError:
    return UserError(f"checkpoint {folder / FOLDER} cannot be read ({reason}): delete that checkpoint folder")
