"""Reads a saved run, to evaluate it, to generate from it or to start another from it."""

from pathlib import Path
from typing import Any, NamedTuple

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.runs.checkpoints import latest_checkpoint
from slm_core.runs.description import other_runs, read_description


class SavedRun(NamedTuple):
    """A run as its folder describes it."""

    config: Config
    framework: str  # the twin that trained it: "torch" or "flax"
    folder: Path
    checkpoint: Path  # the latest; it has the engine's "state", or the "weights" of an imported run
    vocab_size: int
    fingerprint: str  # of the prepared data; IMPORTED
    imported: dict[str, Any] | None = None  # the origin of an imported run's weights; None: it was trained here
    resolved: dict[str, Any] | None = None  # {field: value} of what its first process resolved on its device
    tokens: dict[str, Any] | None = None  # {"eos_token_id": ...} of a model from elsewhere, and of what started from it


def load_run(path: Path | str) -> SavedRun:
    """Reads a run folder and finds its latest checkpoint.

    Raises:
      UserError: there is no such run, it is broken, or it has no checkpoint yet.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run{other_runs(folder)}")
    saved = read_description(folder)
    checkpoint = latest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        raise UserError(f"{folder}: has no checkpoint yet; train it to its first one (train.checkpoint_every)")
    try:
        size, fingerprint, imported = saved["vocab_size"], saved["fingerprint"], saved["imported"]
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'}: broken (no data.{error.args[0]}); train anew") from error
    tokens = saved["tokens"] or {n: v for n, v in (imported or {}).items() if n.endswith("_token_id")}
    return SavedRun(
        saved["config"], saved["framework"], folder, checkpoint, size, fingerprint, imported, saved["resolved"], tokens
    )
