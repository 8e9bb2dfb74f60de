"""Reads a saved run, to evaluate it, to generate from it or to start another from it."""

from pathlib import Path
from typing import Any, NamedTuple

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.manifest import Files, damaged_files
from slm_core.runs.description import other_runs, read_description
from slm_core.runs.fingerprints import Identity
from slm_core.runs.whole import newest_whole


class SavedRun(NamedTuple):
    """A run as its folder describes it."""

    config: Config
    framework: str  # the twin that trained it: "torch" or "flax"
    folder: Path
    checkpoint: Path  # the newest whole one; it has the engine's "state", or the "weights" of an imported run
    vocab_size: int
    identity: Identity
    imported: dict[str, Any] | None = None  # the origin of an imported run's weights; None: it was trained here
    resolved: dict[str, Any] | None = None  # {field: value} of what its first process resolved on its device
    tokens: dict[str, Any] | None = None  # {"eos_token_id": ...} of a model from elsewhere, and of what started from it

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the prepared data; `description.IMPORTED`."""
        return self.identity.data


def load_run(path: Path | str) -> SavedRun:
    """Reads a run folder and finds its newest whole checkpoint; says which damaged ones it passed over.

    Raises:
      UserError: there is no such run, it is broken, it has no checkpoint yet, or none of them is whole.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run{other_runs(folder)}")
    saved = read_description(folder)
    checkpoint = newest_whole(folder / "checkpoints", saved["identity"])
    if checkpoint is None:
        raise UserError(f"{folder}: has no checkpoint yet; train it to its first one (train.checkpoint_every)")
    check_tokenizer(folder, saved["tokenizer"])
    size, identity, imported = saved["vocab_size"], saved["identity"], saved["imported"]
    tokens = saved["tokens"] or {n: v for n, v in (imported or {}).items() if n.endswith("_token_id")}
    config, framework = saved["config"], saved["framework"]
    return SavedRun(config, framework, folder, checkpoint, size, identity, imported, saved["resolved"], tokens)


def check_tokenizer(folder: Path, files: Files) -> None:
    """Raises UserError if a file of a run's tokenizer is not as its config.json says."""
    if wrong := damaged_files(folder / "tokenizer", files, others=True):
        raise UserError(f"{folder / 'tokenizer'}: {wrong[0]}; put a copy back")
