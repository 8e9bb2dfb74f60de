"""The checkpoints of a run: `checkpoints/step-00000200/{state/, loop.json}` and the name of the newest in `latest`.

An imported run has one, of step 0, with `weights/` in the place of `state/`.

A checkpoint is written to a temporary folder, synced, then renamed, so a folder that bears a step's name is always
complete; a crash leaves temporary folders behind, which `repair` removes.
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
    """Returns where the checkpoint of a step is."""
    return root / f"step-{step:08d}"


def list_checkpoints(root: Path) -> list[Path]:
    """Returns the complete checkpoints in `root`, oldest first; [] when there is no such folder."""
    found = [path for path in root.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def latest_checkpoint(root: Path) -> Path | None:
    """Returns the checkpoint that `latest` names (the newest there is, should that file be lost), or None."""
    pointer = root / "latest"
    if pointer.is_file():
        named = root / pointer.read_text().strip()
        if named in list_checkpoints(root):
            return named
    return next(reversed(list_checkpoints(root)), None)


def read_loop(checkpoint: Path) -> dict[str, Any]:
    """Returns the loop's state in a checkpoint. Raises UserError when it cannot be read."""
    try:
        return json.loads((checkpoint / "loop.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint}: broken checkpoint ({error}); delete this folder to go on from the one before it"
        ) from error


def save_checkpoint(root: Path, step: int, save_state: Callable[[Path], None], loop: dict[str, Any], keep: int) -> Path:
    """Commits a checkpoint, makes it the latest and removes all but the newest `keep`.

    Args:
      save_state: writes the engine's state into the empty folder that it is given.
      loop: the loop's state, small, JSON.
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
    """Makes a checkpoint of a folder that holds only `weights/`, and the latest."""
    target = checkpoint_path(root, step)
    write_atomically(target / "loop.json", json.dumps({"progress": {"step": step}}, indent=1) + "\n")
    write_atomically(root / "latest", target.name + "\n")


def repair(root: Path) -> None:
    """Tidies up after a crash: removes what is unfinished, and publishes a checkpoint that was complete but unnamed."""
    for unfinished in root.glob(_TEMPORARY + "*"):
        _remove(unfinished)
    checkpoints = list_checkpoints(root)
    if checkpoints and latest_checkpoint(root) != checkpoints[-1]:
        write_atomically(root / "latest", checkpoints[-1].name + "\n")


def _remove(folder: Path) -> None:
    """Deletes a folder if it is there; a crash half-way leaves no complete-looking checkpoint."""
    if not folder.exists():
        return
    if not folder.name.startswith(_TEMPORARY):
        unnamed = folder.with_name(_TEMPORARY + "old-" + folder.name)
        _remove(unnamed)
        folder = folder.rename(unnamed)
    shutil.rmtree(folder)
