"""Opens the folder of a run for training: creates it, or continues the run in it, and locks it."""

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from slm_core.config import Config
from slm_core.data.dataset import Dataset
from slm_core.data.tokenizers import save_tokenizer
from slm_core.errors import UserError
from slm_core.files import sync_tree
from slm_core.runs.checkpoints import checkpoint_step, latest_checkpoint, repair
from slm_core.runs.description import add_to_description, read_description, write_description
from slm_core.runs.naming import check_name, make_folder, run_name
from slm_core.runs.origin import Source, copy_checkpoint, describe_origin, inherited
from slm_core.runs.resuming import allowed_changes, refuse_foreign
from slm_core.runs.saved import SavedRun


class RunFolder:
    """An open run: this process alone may write to it until `close`. Use it in a `with`.

    Attributes:
      path: the folder.
      checkpoints: the folder of its checkpoints.
      resolved: {field: value} of the fields that the run's first process resolved on its device; None: nothing was
        recorded yet.
      vocab_size: number of token ids that its model knows.
      origin: the run that it was started from, see `slm_core.runs.origin.describe_origin`; None: it began by itself.
    """

    def __init__(self, path: Path, lock: int):
        described = read_description(path)
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.resolved: dict[str, Any] | None = described["resolved"]
        self.vocab_size: int = described["vocab_size"]
        self.origin: dict[str, Any] | None = described["origin"]
        self._changes: list[dict[str, Any]] = described["changes"] or []
        self._lock = lock

    def record(self, resolved: dict[str, Any]) -> None:
        """Writes the resolved fields into config.json, so that a resumed run computes the same."""
        self.resolved = resolved
        add_to_description(self.path, resolved=resolved)

    def changed_at(self, step: int) -> dict[str, list[Any]]:
        """Returns {field: [value before, value now]} of the settings that changed when the run went on at a step."""
        origin = [self.origin] if self.origin else []
        changed = [change["changed"] for change in (*origin, *self._changes) if change["step"] == step]
        return {name: values for each in changed for name, values in each.items()}

    def save_sample(self, step: int, text: str) -> None:
        """Writes a text that the model wrote at a step."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"step-{step:08d}.txt").write_text(text, encoding="utf-8")

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
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
    path = make_folder(Path(config.run.dir), name, config.run.resume)
    lock = _acquire(path)
    try:
        refuse_foreign(path)
        repair(path / "checkpoints")
        if checkpoint := latest_checkpoint(path / "checkpoints"):
            _continue(path, config, framework, dataset.fingerprint, checkpoint_step(checkpoint))
        else:
            _begin(path, config, framework, preset, dataset, base, source)
        return RunFolder(path, lock)
    except BaseException:
        os.close(lock)
        raise


def read_samples(path: Path) -> list[tuple[int, str]]:
    """Lists (step, text) of the texts that a run's model wrote, in order."""
    files = sorted((path / "samples").glob("step-*.txt"))
    return [(int(file.stem.removeprefix("step-")), file.read_text(encoding="utf-8")) for file in files]


def _acquire(path: Path) -> int:
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise UserError(
            f"run.name={path.name!r}: another process is training in {path}; wait for it, or choose another run.name"
        ) from error
    return lock


def _continue(path: Path, config: Config, framework: str, fingerprint: str, step: int) -> None:
    """Checks that the run may go on with these settings, and records in config.json what changes at this step.

    What was resolved for other settings, or for the other twin, is forgotten. The dtype stays.
    """
    changed = allowed_changes(path, config, framework, fingerprint, step)
    before = read_description(path)
    if not changed and before["framework"] == framework:
        return
    change: dict[str, Any] = {"step": step, "changed": changed}
    kept = {name: value for name, value in (before["resolved"] or {}).items() if name not in changed}
    if before["framework"] != framework:
        change |= {"framework": [before["framework"], framework]}
        kept = {name: value for name, value in kept.items() if name == "precision.compute"}
    values = {"config": dataclasses.asdict(config), "framework": framework, "resolved": kept}
    add_to_description(path, **values, changes=[*(before["changes"] or []), change])


def _begin(
    path: Path,
    config: Config,
    framework: str,
    preset: str,
    dataset: Dataset,
    base: SavedRun | None,
    source: Source | None,
) -> None:
    """Writes the files of a new run: first the tokenizer, then config.json, last the checkpoint of its source."""
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
    write_description(path, config, framework, preset, dataset.fingerprint, vocab_size, **more)
    if source:
        copy_checkpoint(source, config, dataset.fingerprint, path)
