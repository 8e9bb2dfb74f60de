"""Writes and lists the checkpoints of a run: `checkpoints/step-00000200/{state/, loop.json, manifest.json}`.

`config.json` beside them is a copy of the run's. An imported run has one checkpoint, of step 0, with `weights/` in the
place of `state/`. `checkpoints/latest` has the name of the newest one; it is for people, and no code relies on it.

A checkpoint is written to a temporary folder, synced, then renamed. So a folder with a step's name was complete once,
and its manifest says whether it still is: see `slm_core.runs.whole`. A crash leaves temporary folders behind.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from slm_core.files import write_atomically
from slm_core.json_files import Count, Schema, read_json
from slm_core.logging import say
from slm_core.manifest import FileSum, commit_folder
from slm_core.runs.fingerprints import Identity
from slm_core.runs.progress import Progress

_TEMPORARY = ".tmp-"


class Position(Schema):
    """The position of `Batches` in its data."""

    next_index: Count  # batches handed out


class LoopState(Schema):
    """The content of loop.json: what a checkpoint keeps beside the engine's state."""

    progress: Progress
    data: Position | None = None  # None: of an imported run
    lines: dict[str, FileSum] = {}
    """{"metrics.jsonl": size and checksum of its lines up to this step}, and the same of details.jsonl."""


def checkpoint_path(root: Path, step: int) -> Path:
    """Returns the folder of a step's checkpoint."""
    return root / f"step-{step:08d}"


def checkpoint_step(checkpoint: Path) -> int:
    """Returns the step of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix("step-"))


def list_entries(root: Path) -> list[Path]:
    """Lists everything in `root` that has a step's name, oldest first; [] if there is no such folder."""
    return sorted((path for path in root.glob("step-*") if re.fullmatch("step-[0-9]+", path.name)), key=checkpoint_step)


def list_checkpoints(root: Path) -> list[Path]:
    """Lists the checkpoints in `root` by their names, oldest first; their files are not checked."""
    return [path for path in list_entries(root) if path.is_dir()]


def latest_checkpoint(root: Path) -> Path | None:
    """Finds the newest checkpoint by its name; None if there is none. Its files are not checked."""
    return next(reversed(list_checkpoints(root)), None)


def read_loop(checkpoint: Path) -> LoopState:
    """Reads the loop's state in a checkpoint. Raises UserError if it cannot be used."""
    return read_json(checkpoint / "loop.json", LoopState, "delete this checkpoint to continue from the one before it")


def save_checkpoint(
    root: Path, step: int, save_state: Callable[[Path], object], loop: LoopState, keep: int, identity: Identity
) -> Path:
    """Commits a checkpoint, and removes all but the newest `keep` and the best.

    Args:
      save_state: writes the engine's state into the empty folder that it is given.
      loop: its progress says which checkpoint is the best.
      identity: of the run.
    """
    target = checkpoint_path(root, step)
    temporary = root / (_TEMPORARY + target.name)
    remove_checkpoint(temporary)
    (temporary / "state").mkdir(parents=True)
    save_state(temporary / "state")
    _commit(temporary, target, "checkpoint", loop, identity)
    remove_old(root, loop, keep)
    return target


def remove_old(root: Path, loop: LoopState, keep: int) -> None:
    """Removes all checkpoints up to the one that `loop` is of, but for the newest `keep` of these, and the best."""
    best = checkpoint_path(root, loop.progress.best_step)
    done = [path for path in list_checkpoints(root) if checkpoint_step(path) <= loop.progress.step]
    for old in done[:-keep]:
        if old != best:
            remove_checkpoint(old)


def unfinished_import(root: Path) -> Path:
    """Returns the folder in which the `weights/` of an imported run are written."""
    return root / (_TEMPORARY + checkpoint_path(root, 0).name)


def publish_weights(root: Path, identity: Identity) -> None:
    """Makes the folder of `unfinished_import`, whose `weights/` are written, checkpoint 0 and the latest one."""
    state = LoopState(progress=Progress())
    _commit(unfinished_import(root), checkpoint_path(root, 0), "import", state, identity)


def name_latest(root: Path, checkpoint: Path) -> None:
    """Writes the name of a checkpoint into `latest`. A folder of that name is moved out of the way."""
    pointer = root / "latest"
    if pointer.is_dir() and not pointer.is_symlink():
        pointer.rename(unused(root / "damaged-latest"))
    write_atomically(pointer, checkpoint.name + "\n")


def remove_unfinished(root: Path) -> None:
    """Removes the folders that a crash left unfinished, and says so."""
    for unfinished in sorted(root.glob(_TEMPORARY + "*")):
        say(f"{unfinished}: removed, it is what a save left that did not end")
        remove_checkpoint(unfinished)


def remove_checkpoint(path: Path) -> None:
    """Deletes a folder or file if it is there. A crash half-way leaves nothing that looks like a checkpoint."""
    if not path.exists():
        return
    if not path.name.startswith(_TEMPORARY):
        unnamed = path.with_name(_TEMPORARY + "old-" + path.name)
        remove_checkpoint(unnamed)
        path = path.rename(unnamed)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def unused(path: Path) -> Path:
    """Returns the path, or the first of "-2", "-3", ... behind it that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _commit(temporary: Path, target: Path, kind: str, loop: LoopState, identity: Identity) -> None:
    """Completes a folder with the small files, gives it its name, and names the newest one in `latest`."""
    (temporary / "loop.json").write_text(json.dumps(msgspec.to_builtins(loop), indent=1) + "\n")
    description = target.parent.parent / "config.json"
    if description.is_file():
        shutil.copyfile(description, temporary / "config.json")
    remove_checkpoint(target)
    commit_folder(temporary, target, kind, loop.progress.step, *identity)
    name_latest(target.parent, latest_checkpoint(target.parent) or target)
