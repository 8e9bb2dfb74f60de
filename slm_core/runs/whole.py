"""Finds the newest checkpoint whose every byte is as it was saved, and says which damaged ones it passed over."""

import contextlib
import functools
from pathlib import Path
from typing import Any

from slm_core.errors import UserError
from slm_core.files import stamp
from slm_core.json_files import Broken
from slm_core.logging import say, say_once
from slm_core.manifest import damaged_files, read_manifest
from slm_core.runs.checkpoints import checkpoint_path, checkpoint_step, list_entries, name_latest, read_loop, unused
from slm_core.runs.fingerprints import Identity


def newest_whole(root: Path, identity: Identity | None = None) -> Path | None:
    """Finds the newest whole checkpoint; None: there has never been one. Says which ones it passed over, and why.

    A checkpoint is read once per process, for its checksums, unless it changes.

    Args:
      root: the run's `checkpoints` folder.
      identity: of the run, to refuse another run's checkpoints; None: it is not known.

    Raises:
      UserError: there are checkpoints, and none is whole.
    """
    entries, damaged = list_entries(root), []
    if pointed := latest_problem(root, entries):
        say_once(f"{root / 'latest'}: {pointed}; it is not needed: the newest whole checkpoint is used")
    for entry in reversed(entries):
        wrong = damage(entry, identity)
        if not wrong:
            for line in damaged:
                say_once(f"{root}: {line}; {entry.name} is used")
            return entry
        if not entry.exists() and not entry.is_symlink():  # deleted by the process that trains, while it was read here
            return newest_whole(root, identity)
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        damaged.append(f"{entry.name} is damaged ({wrong[0]}{more})")
    if damaged:
        raise UserError(
            f"{root}: no checkpoint is whole: {'; '.join(damaged[:3])}; put a copy back, or delete {root} to begin anew"
        )
    return None


def damage(checkpoint: Path, identity: Identity | None = None) -> tuple[str, ...]:
    """Says what is wrong with a checkpoint; (): it is whole. Its files are read again only if one was written."""
    return _damaged_files(checkpoint, _stamps(checkpoint)) or _misplaced(checkpoint, identity)


def whole_checkpoints(root: Path, identity: Identity) -> list[Path]:
    """Lists the whole checkpoints of a run, oldest first. Says which damaged ones it leaves out, and why."""
    whole = []
    for entry in list_entries(root):
        if wrong := damage(entry, identity):
            say_once(f"{root}: {entry.name} is damaged ({wrong[0]}); it is left out")
        else:
            whole.append(entry)
    return whole


def check_whole(checkpoint: Path, identity: Identity | None = None) -> None:
    """Raises UserError if a checkpoint is damaged, or of another run."""
    if wrong := damage(checkpoint, identity):
        raise UserError(f"{checkpoint}: cannot be used: {wrong[0]}; delete this folder, or put a copy back")


def was_saved(root: Path) -> bool:
    """Says whether a run ever had a checkpoint, whole or not."""
    return bool(list_entries(root)) or (root / "latest").exists()


def newest_named(root: Path) -> int:
    """Returns the step of the newest checkpoint whose loop.json can be read; 0: there is none. Reads no large file."""
    for entry in reversed(list_entries(root)):
        with contextlib.suppress(Broken):
            if read_loop(entry).progress.step == checkpoint_step(entry):
                return checkpoint_step(entry)
    return 0


def set_damaged_aside(root: Path, whole: Path) -> None:
    """Renames what is newer than the newest whole checkpoint, so that it is neither found nor counted, and says so."""
    for entry in list_entries(root):
        if checkpoint_step(entry) > checkpoint_step(whole):
            target = entry.rename(unused(root / f"damaged-{entry.name}"))
            say(f"{entry}: damaged, renamed to {target.name}; delete it if you do not need it")
    if latest_problem(root, list_entries(root)):
        name_latest(root, whole)


def latest_problem(root: Path, entries: list[Path]) -> str:
    """Says what is wrong with `latest`; "": it has the name of the newest of the entries.

    Raises:
      UserError: `latest` is there and no checkpoint is: they were deleted.
    """
    pointer = root / "latest"
    if not was_saved(root):
        return ""
    if not pointer.is_file():
        problem = "is not a file" if pointer.exists() else "is missing"
    else:
        text = pointer.read_text(errors="replace")
        if entries and text == f"{entries[-1].name}\n":
            return ""
        problem = f"holds {text[:40]!r}, the newest checkpoint is {entries[-1].name if entries else 'gone'}"
    if not entries:
        raise UserError(f"{pointer}: {problem}; put the checkpoints back, or delete {root} and begin anew")
    return problem


def _stamps(folder: Path) -> Any:
    """Returns what changes when a file of a folder is written; something new each time if that cannot be read."""
    try:
        return tuple((path, stamp(path)) for path in sorted(folder.rglob("*")) if path.is_file())
    except OSError:
        return object()


@functools.lru_cache(maxsize=64)
def _damaged_files(checkpoint: Path, stamps: Any) -> tuple[str, ...]:
    if not checkpoint.is_dir():
        return ("it is not a folder",)
    try:
        return tuple(damaged_files(checkpoint, read_manifest(checkpoint, "").files))
    except Broken as error:
        return (error.short,)


def examine(checkpoint: Path, identity: Identity | None = None) -> tuple[str, ...]:
    """Says what is wrong with a checkpoint after reading every file of it; (): it is whole."""
    return _damaged_files.__wrapped__(checkpoint, None) or _misplaced(checkpoint, identity)


def _misplaced(checkpoint: Path, identity: Identity | None) -> tuple[str, ...]:
    """Says what is wrong with the small files of a checkpoint: they are of another step, or of another run."""
    try:
        manifest, loop = read_manifest(checkpoint, ""), read_loop(checkpoint)
    except Broken as error:
        return (error.short,)
    wrong = []
    if manifest.kind == "export":
        wrong.append("it is an exported folder")
    if checkpoint_path(checkpoint.parent, manifest.step) != checkpoint:
        wrong.append(f"it holds step {manifest.step}: it was renamed or swapped")
    if loop.progress.step != manifest.step:
        wrong.append(f"loop.json holds step {loop.progress.step} instead of {manifest.step}")
    if identity and (manifest.config, manifest.data) != identity:
        wrong.append(
            f"it is of another run: fingerprints {manifest.config} and {manifest.data} of config and data instead of"
            f" {identity.config} and {identity.data}"
        )
    return tuple(wrong)
