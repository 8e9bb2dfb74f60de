"""Opens the folder of a run for training: creates it, or continues the run in it, and locks it."""

import dataclasses
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from slm_core.config import Config
from slm_core.data.dataset import Dataset
from slm_core.data.tokenizers import save_tokenizer
from slm_core.errors import UserError
from slm_core.files import lock_file, sync_tree
from slm_core.logging import say
from slm_core.manifest import Files, damaged_files
from slm_core.runs.checkpoints import checkpoint_step, remove_unfinished, unused
from slm_core.runs.description import (
    Change,
    Changes,
    Origin,
    add_to_description,
    describe,
    read_description,
    repair_description,
    write_description,
)
from slm_core.runs.fingerprints import Identity
from slm_core.runs.naming import check_name, make_folder, run_name
from slm_core.runs.origin import Source, copy_checkpoint, describe_origin, inherited
from slm_core.runs.resuming import allowed_changes, refuse_fewer_steps, refuse_foreign
from slm_core.runs.saved import SavedRun, check_tokenizer
from slm_core.runs.whole import newest_whole, set_damaged_aside, was_saved


class RunFolder:
    """An open run: this process alone may write to it until `close`. Use it in a `with`.

    Attributes:
      path: the folder.
      checkpoints: the folder of its checkpoints.
      identity: what its checkpoints have in common.
      checkpoint: the newest whole one when it was opened; None: the run begins.
      resolved: {field: value} of the fields that the run's first process resolved on its device; None: nothing was
        recorded yet.
      vocab_size: number of token ids that its model knows.
      origin: the checkpoint of another run that it was started from; None: it began by itself.
    """

    def __init__(self, path: Path, lock: int, checkpoint: Path | None = None, new: bool = False):
        described = read_description(path)
        self.path = path
        self.identity: Identity = described["identity"]
        self.checkpoint = checkpoint
        self.checkpoints = path / "checkpoints"
        self.resolved: dict[str, Any] | None = described["resolved"]
        self.vocab_size: int = described["vocab_size"]
        self.origin: Origin | None = described["origin"]
        self._changes: list[Change] = described["changes"] or []
        self._lock, self._new = lock, new

    def record(self, resolved: dict[str, Any]) -> None:
        """Writes the resolved fields into config.json, so that a resumed run computes the same."""
        self.resolved = resolved
        add_to_description(self.path, resolved=resolved)

    def plan(self, config: Config) -> None:
        """Writes the config into config.json, with the steps that were chosen for its minutes."""
        add_to_description(self.path, config=dataclasses.asdict(config))

    def changed_at(self, step: int) -> Changes:
        """Returns {field: [value before, value now]} of the settings that changed when the run went on at a step."""
        origin = [self.origin] if self.origin else []
        changed = [change.changed for change in (*origin, *self._changes) if change.step == step]
        return {name: values for each in changed for name, values in each.items()}

    def save_sample(self, step: int, text: str) -> None:
        """Writes a text that the model wrote at a step."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"step-{step:08d}.txt").write_text(text, encoding="utf-8")

    def check_there(self) -> None:
        """Raises UserError if the folder is no longer the one that this process locked."""
        try:
            same = os.path.samestat(os.stat(self.path / ".lock"), os.fstat(self._lock))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise UserError(
                f"{self.path}: it was removed, renamed or replaced while it trained, so nothing more can be saved; "
                "put it back, or run the same command again to begin anew"
            )

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the run. One that was refused before its first update leaves no folder behind.

        Raises:
          UserError: a file is missing because the whole folder is.
        """
        if self._new and kind and issubclass(kind, UserError) and not (self.path / "metrics.jsonl").exists():
            shutil.rmtree(self.path, ignore_errors=True)
        try:
            if kind and issubclass(kind, FileNotFoundError | NotADirectoryError):
                self.check_there()
        finally:
            self.close()


def open_run(
    config: Config,
    framework: str,
    preset: str,
    overrides: Iterable[str],
    dataset: Dataset,
    base: SavedRun | None = None,
    source: Source | None = None,
) -> RunFolder:
    """Creates the run's folder, or opens the one that is there to continue it, and locks it.

    A run without a checkpoint starts over, whatever its config was. With `run.resume` off, an existing name gets the
    next free "-2", "-3", ...

    Args:
      base: the run whose weights it starts from, if any: its vocabulary and special tokens become this run's.
      source: the run whose newest checkpoint it starts from, if any: that becomes this run's first checkpoint.

    Raises:
      UserError: the folder is not a run, another process trains in it, or the run in it is a different one.
    """
    name = run_name(config, framework, preset, overrides)
    check_name(name)
    there = (Path(config.run.dir) / name).exists()
    path = make_folder(Path(config.run.dir), name, config.run.resume)
    new = not there or not config.run.resume
    lock = _acquire(path)
    try:
        checkpoints = path / "checkpoints"
        repair_description(path)
        refuse_foreign(path)
        remove_unfinished(checkpoints)
        if was_saved(checkpoints):
            checkpoint = _continue(path, config, framework, dataset)
        else:
            checkpoint = _begin(path, config, framework, preset, dataset, base, source)
        return RunFolder(path, lock, checkpoint, new)
    except BaseException:
        os.close(lock)
        raise


def read_samples(path: Path) -> list[tuple[int, str]]:
    """Lists (step, text) of the texts that a run's model wrote, in order. Bytes that are not UTF-8 become U+FFFD."""
    files = sorted(path for path in (path / "samples").glob("step-*.txt") if re.fullmatch("step-[0-9]+", path.stem))
    return [(int(file.stem.removeprefix("step-")), file.read_text("utf-8", "replace")) for file in files]


def _acquire(path: Path) -> int:
    handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    if lock_file(handle) is False:
        os.close(handle)
        raise UserError(
            f"run.name={path.name!r}: another process is training in {path}; wait for it, or choose another run.name"
        )
    return handle


def _continue(path: Path, config: Config, framework: str, dataset: Dataset) -> Path:
    """Checks that the run may go on so, and repairs its folder. Returns its newest whole checkpoint."""
    changed = allowed_changes(path, config, framework, dataset.fingerprint)
    saved, checkpoints = read_description(path), path / "checkpoints"
    checkpoint = newest_whole(checkpoints, saved["identity"])
    assert checkpoint
    refuse_fewer_steps(path, config, checkpoint_step(checkpoint))
    set_damaged_aside(checkpoints, checkpoint)
    _repair_tokenizer(path, saved["tokenizer"], dataset)
    if changed or saved["framework"] != framework:
        _record_change(path, saved, config, framework, checkpoint_step(checkpoint), changed)
    return checkpoint


def _record_change(
    path: Path, saved: dict[str, Any], config: Config, framework: str, step: int, changed: Changes
) -> None:
    """Records in config.json what changes at a step.

    What was resolved for other settings, or for the other twin, is forgotten. The dtype stays.
    """
    twins = None if saved["framework"] == framework else [saved["framework"], framework]
    kept = {name: value for name, value in (saved["resolved"] or {}).items() if name not in changed}
    if twins:
        kept = {name: value for name, value in kept.items() if name == "precision.compute"}
    changes = [*(saved["changes"] or []), Change(step=step, changed=changed, framework=twins)]
    values = {"config": dataclasses.asdict(config), "framework": framework, "resolved": kept}
    add_to_description(path, **values, changes=changes)


def _begin(
    path: Path,
    config: Config,
    framework: str,
    preset: str,
    dataset: Dataset,
    base: SavedRun | None,
    source: Source | None,
) -> Path | None:
    """Writes the files of a new run: tokenizer, config.json, and last the checkpoint of its source, if it has one."""
    giver = source.run if source else base
    shutil.rmtree(path / "tokenizer", ignore_errors=True)  # of an attempt that never reached a checkpoint
    if giver and (giver.folder / "tokenizer" / "kind.json").is_file():
        shutil.copytree(giver.folder / "tokenizer", path / "tokenizer")  # with the files that an export needs
    save_tokenizer(dataset.tokenizer, path / "tokenizer")
    sync_tree(path / "tokenizer")
    vocab_size, more = (giver.vocab_size, {"tokens": giver.tokens}) if giver else (dataset.vocab_size, {})
    if source:
        more |= {"origin": describe_origin(source, config, dataset.fingerprint)}
        more |= {"resolved": inherited(source, config, framework)}
    description = describe(path, config, framework, preset, dataset.fingerprint, vocab_size, **more)
    identity = write_description(path, description)
    return copy_checkpoint(source, config, identity, path) if source else None


def _repair_tokenizer(path: Path, files: Files, dataset: Dataset) -> None:
    """Writes the run's copy of its tokenizer anew if it is damaged and the dataset's is the same."""
    try:
        check_tokenizer(path, files)
    except UserError as error:
        anew = path / ".tmp-tokenizer"
        shutil.rmtree(anew, ignore_errors=True)
        save_tokenizer(dataset.tokenizer, anew)
        if damaged_files(anew, files):
            raise
        sync_tree(anew)
        if (path / "tokenizer").exists():
            (path / "tokenizer").rename(unused(path / "damaged-tokenizer"))
        anew.rename(path / "tokenizer")
        say(f"{error}; written anew from the dataset")
