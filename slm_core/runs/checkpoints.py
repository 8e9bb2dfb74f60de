"""Writes and finds the checkpoints of a run: `checkpoints/step-00000200/{state/, loop.json}`.

`checkpoints/latest` has the name of the newest. An imported run has one checkpoint, of step 0, with `weights/` in the
place of `state/`.

A checkpoint is written to a temporary folder, synced, then renamed. So a folder with a step's name is always complete.
A crash leaves temporary folders behind, which `repair` removes.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slm_core.errors import UserError
from slm_core.files import sync, sync_tree, write_atomically

_TEMPORARY = ".tmp-"


def checkpoint_path(root: Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return root / f"step-{step:08d}"


def checkpoint_step(checkpoint: Path) -> int:
    """Returns the step of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("step-"))


def list_checkpoints(root: Path) -> list[Path]:
    """Lists the complete checkpoints in `root`, oldest first; [] if there is no such folder."""
    checkpoints = [path for path in root.glob("step-*") if path.is_dir() and path.name.removeprefix("step-").isdigit()]
    return sorted(checkpoints, key=checkpoint_step)


def latest_checkpoint(root: Path) -> Path | None:
    """Finds the checkpoint that `latest` names; the newest one if that file is lost; None if there is none."""
    pointer = root / "latest"
    if pointer.is_file():
        named = root / pointer.read_text().strip()
        if named in list_checkpoints(root):
            return named
    return next(reversed(list_checkpoints(root)), None)


def read_loop(checkpoint: Path) -> dict[str, Any]:
    """Reads the loop's state in a checkpoint. Raises UserError if it cannot be read."""
    try:
        return json.loads((checkpoint / "loop.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint}: broken checkpoint ({error}); delete this folder to continue from the one before it"
        ) from error


def save_checkpoint(root: Path, step: int, save_state: Callable[[Path], None], loop: dict[str, Any], keep: int) -> Path:
    """Commits a checkpoint, makes it the latest, and removes all but the newest `keep`.

    Args:
      save_state: writes the engine's state into the empty folder that it is given.
      loop: the loop's state, a small JSON object.
    """
    target = checkpoint_path(root, step)
    temporary = root / (_TEMPORARY + target.name)
    _remove(temporary)
    (temporary / "state").mkdir(parents=True)
    save_state(temporary / "state")
    (temporary / "loop.json").write_text(json.dumps(loop, indent=1) + "\n")
    sync_tree(temporary)
    _remove(target)
    temporary.rename(target)
    sync(root)
    write_atomically(root / "latest", target.name + "\n")
    for old in list_checkpoints(root)[:-keep]:
        _remove(old)
    return target


def publish_weights(root: Path, step: int) -> None:
    """Makes a folder that has only `weights/` a checkpoint, and the latest one."""
    target = checkpoint_path(root, step)
    write_atomically(target / "loop.json", json.dumps({"progress": {"step": step}}, indent=1) + "\n")
    write_atomically(root / "latest", target.name + "\n")


def repair(root: Path) -> None:
    """Tidies up after a crash: removes unfinished folders, and names the newest complete checkpoint in `latest`."""
    for unfinished in root.glob(_TEMPORARY + "*"):
        _remove(unfinished)
    checkpoints = list_checkpoints(root)
    if checkpoints and latest_checkpoint(root) != checkpoints[-1]:
        write_atomically(root / "latest", checkpoints[-1].name + "\n")


def _remove(folder: Path) -> None:
    """Deletes a folder if it is there. A crash half-way leaves nothing that looks like a checkpoint."""
    if not folder.exists():
        return
    if not folder.name.startswith(_TEMPORARY):
        unnamed = folder.with_name(_TEMPORARY + "old-" + folder.name)
        _remove(unnamed)
        folder = folder.rename(unnamed)
    shutil.rmtree(folder)
