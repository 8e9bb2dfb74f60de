"""Starts a run from the newest checkpoint of another run, of either twin: to continue it, or to branch off."""

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from slm_core.config import Config
from slm_core.config.fields import flatten
from slm_core.errors import UserError
from slm_core.runs.checkpoints import Position, checkpoint_step, read_loop, save_checkpoint
from slm_core.runs.chosen import best_checkpoint, same_measure
from slm_core.runs.description import Origin
from slm_core.runs.fingerprints import Identity
from slm_core.runs.naming import run_name
from slm_core.runs.resuming import changes, refuse_fewer_steps, refuse_fixed, refuse_other_text, refuse_unsafe
from slm_core.runs.saved import SavedRun, load_run
from slm_core.runs.whole import was_saved

RECORDS = ("metrics.jsonl", "details.jsonl")
ORDERING = ("seed", "data.", "train.batch_size")
"""Prefixes of the fields that decide which tokens come when. data.dir, where they are stored, does not."""


class Source(NamedTuple):
    """The run that a new one starts from.

    Args:
      run: as its folder describes it.
      branches: whether the new run may have other settings.
    """

    run: SavedRun
    branches: bool

    @property
    def step(self) -> int:
        """Updates that the checkpoint has behind it."""
        return checkpoint_step(self.run.checkpoint)


def open_source(config: Config, framework: str, preset: str, overrides: Iterable[str] = ()) -> Source | None:
    """Opens the run that this one starts from. None: none is named, or this run has a checkpoint of its own.

    Raises:
      UserError: there is no such run, it has no state to go on with, or a field changed that it cannot go on with.
    """
    run = config.run
    if not (run.resume_from or run.branch):
        return None
    target = Path(run.dir) / run_name(config, framework, preset, overrides)
    if run.resume and was_saved(target / "checkpoints"):
        return None
    field = "run.resume_from" if run.resume_from else "run.name"
    folder = Path(run.resume_from or Path(run.dir) / run.name)
    try:
        saved = load_run(folder)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    if saved.imported is not None:
        raise UserError(
            f"{field}={folder}: an imported model has weights and no state to continue; start from them:"
            f" --config=configs/finetune.py:{folder}"
        )
    source = Source(saved, bool(run.branch))
    _check_settings(source, config)
    return source


def _check_settings(source: Source, config: Config) -> None:
    saved = source.run
    if source.branches:
        refuse_fixed(saved.folder, saved.config, config)
    else:
        anew = "leave out --config and the overrides, which takes all settings from there"
        refuse_unsafe(saved.folder, changes(saved.config, config), anew)
    refuse_fewer_steps(saved.folder, config, source.step, source.branches)


def check_text(source: Source, config: Config, fingerprint: str) -> None:
    """Raises UserError if a run is to continue another one with other text."""
    if not source.branches:
        refuse_other_text(source.run.folder, config, source.run.fingerprint, fingerprint)


def describe_origin(source: Source, config: Config, fingerprint: str) -> Origin:
    """Says for config.json what a run was started from, and which settings, and which text, changed there."""
    run = source.run
    changed = changes(run.config, config)
    if fingerprint != run.fingerprint:
        changed["data.fingerprint"] = [run.fingerprint, fingerprint]
    return Origin(
        run=str(run.folder), framework=run.framework, step=source.step, branch=source.branches, changed=changed
    )


def inherited(source: Source, config: Config, framework: str) -> dict[str, Any]:
    """Returns the fields that the source resolved and that the new run keeps.

    They are all of them if the same twin goes on with the same settings; else the dtype alone.
    """
    changed = changes(source.run.config, config)
    resolved = {name: value for name, value in (source.run.resolved or {}).items() if name not in changed}
    if source.branches or source.run.framework != framework:
        return {name: value for name, value in resolved.items() if name == "precision.compute"}
    return resolved


def copy_checkpoint(source: Source, config: Config, identity: Identity, path: Path) -> Path:
    """Gives the new run in `path` the source's newest checkpoint, and the lines of its record up to there.

    The data start anew if other tokens come. The checkpoint comes last: without it the run has not begun. Only the
    source's best checkpoint comes later, if the new run keeps it.

    Returns:
      The new run's checkpoint.

    Raises:
      UserError: the source cannot be read, or another process trains in it and removed the checkpoint meanwhile.
    """
    saved = source.run
    before, now = (flatten(each) for each in (saved.config, config))
    ordering = [name for name in now if name.startswith(ORDERING) and name != "data.dir"]
    same_order = identity.data == saved.fingerprint and all(before[name] == now[name] for name in ordering)
    try:
        for name in RECORDS:
            (path / name).unlink(missing_ok=True)
            if (saved.folder / name).exists():
                shutil.copyfile(saved.folder / name, path / name)
        copies = []
        for checkpoint in (saved.checkpoint, *_best_too(source, config, identity)):
            loop = read_loop(checkpoint)
            loop = loop if same_order else msgspec.structs.replace(loop, data=Position(next_index=0))
            copy, step = partial(shutil.copytree, checkpoint / "state", dirs_exist_ok=True), checkpoint_step(checkpoint)
            keep = config.train.keep_checkpoints
            copies.append(save_checkpoint(path / "checkpoints", step, copy, loop, keep, identity))
        return copies[0]
    except OSError as error:
        raise UserError(f"{saved.checkpoint} cannot be copied ({error}): run the command again") from error


def _best_too(source: Source, config: Config, identity: Identity) -> list[Path]:
    """Lists the best checkpoint of a source, if the new run keeps it and measures its loss on the same batches."""
    saved = source.run
    same = identity.data == saved.fingerprint and same_measure(changes(saved.config, config))
    if not (config.train.keep_best and same):
        return []
    best = best_checkpoint(saved.folder / "checkpoints", saved.identity, read_loop(saved.checkpoint).progress)
    return [best] if best and best != saved.checkpoint else []
