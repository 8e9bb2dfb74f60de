"""Opens the folder of a run for training: creates it, or continues the run in it, and locks it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from slm_core.config import Config
from slm_core.data.dataset import Dataset
from slm_core.data.tokenizers import save_tokenizer
from slm_core.errors import UserError
from slm_core.files import lock_file, sync_tree
from slm_core.runs.checkpoints import latest_checkpoint, repair
from slm_core.runs.description import add_to_description, read_description, write_description
from slm_core.runs.naming import automatic_name, check_name, make_folder
from slm_core.runs.resuming import refuse_different, refuse_foreign
from slm_core.runs.saved import SavedRun


class RunFolder:
    """An open run: this process alone may write to it until `close`. Use it in a `with`.

    Attributes:
      path: the folder.
      checkpoints: the folder of its checkpoints.
      resolved: {field: value} of the fields that the run's first process resolved on its device; None: nothing was
        recorded yet.
    """

    def __init__(self, path: Path, lock: int, resolved: dict[str, Any] | None = None):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.resolved = resolved
        self._lock = lock

    def record(self, resolved: dict[str, Any]) -> None:
        """Writes the resolved fields into config.json, so that a resumed run computes the same."""
        self.resolved = resolved
        add_to_description(self.path, resolved=resolved)

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
) -> RunFolder:
    """Creates the run's folder, or opens the one that is there to continue it, and locks it.

    A run without a checkpoint starts over, whatever its config was. With `run.resume` off, an existing name gets the
    next free "-2", "-3", ...

    Args:
      base: the run whose weights it starts from, if any: its vocabulary and special tokens become this run's.

    Raises:
      UserError: the folder is not a run, another process trains in it, or the run in it is a different one.
    """
    name = config.run.name or automatic_name(config, framework, preset, overrides)
    check_name(name)
    path = make_folder(Path(config.run.dir), name, config.run.resume)
    lock = _acquire(path)
    try:
        refuse_foreign(path)
        repair(path / "checkpoints")
        resolved = None
        if latest_checkpoint(path / "checkpoints"):
            refuse_different(path, config, framework, dataset.fingerprint)
            resolved = read_description(path)["resolved"]
        else:
            _describe(path, config, framework, preset, dataset, base)
    except BaseException:
        os.close(lock)
        raise
    return RunFolder(path, lock, resolved)


def read_samples(path: Path) -> list[tuple[int, str]]:
    """Lists (step, text) of the texts that a run's model wrote, in order."""
    files = sorted((path / "samples").glob("step-*.txt"))
    return [(int(file.stem.removeprefix("step-")), file.read_text(encoding="utf-8")) for file in files]


def _acquire(path: Path) -> int:
    handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    if lock_file(handle) is False:
        os.close(handle)
        raise UserError(
            f"run.name={path.name!r}: another process is training in {path}; wait for it, or choose another run.name"
        )
    return handle


def _describe(path: Path, config: Config, framework: str, preset: str, dataset: Dataset, base: SavedRun | None) -> None:
    """Writes the files that make the folder a run. config.json comes last: it says that the rest is there."""
    shutil.rmtree(path / "tokenizer", ignore_errors=True)  # of an attempt that never reached a checkpoint
    if base and (base.folder / "tokenizer" / "kind.json").is_file():
        shutil.copytree(base.folder / "tokenizer", path / "tokenizer")  # with the files that an export needs
    save_tokenizer(dataset.tokenizer, path / "tokenizer")
    sync_tree(path / "tokenizer")
    vocab_size, more = (base.vocab_size, {"tokens": base.tokens}) if base else (dataset.vocab_size, {})
    write_description(path, config, framework, preset, dataset.fingerprint, vocab_size, **more)
