"""Makes a run of weights that come from elsewhere."""

import shutil
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.files import sync_tree
from slm_core.runs.checkpoints import list_entries, publish_weights, remove_checkpoint, unfinished_import
from slm_core.runs.description import BEFORE_CONFIG, IMPORTED, describe, write_description


def make_imported(path: Path) -> Path:
    """Makes the folder of a run whose weights come from elsewhere. Removes what an unfinished import left there.

    Returns:
      The folder for `slm_core.model.weights.write_weights`; `describe_imported` then completes the run.

    Raises:
      UserError: something else is there already, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error.strerror}); choose another folder") from error
    foreign = sorted({entry.name for entry in path.iterdir()} - BEFORE_CONFIG - {"checkpoints"})
    if foreign:
        raise UserError(f"{path}: already holds {foreign[0]}; choose another name, or delete that folder")
    for checkpoint in list_entries(path / "checkpoints"):
        remove_checkpoint(checkpoint)  # it loses its name first, so that a kill leaves no half of one
    for unfinished in ("tokenizer", "checkpoints"):
        shutil.rmtree(path / unfinished, ignore_errors=True)
    return unfinished_import(path / "checkpoints") / "weights"


def describe_imported(
    path: Path, config: Config, framework: str, preset: str, vocab_size: int, origin: dict[str, Any]
) -> None:
    """Completes the folder of `make_imported`, whose weights and tokenizer are written: checkpoint 0, then config.json.

    Args:
      framework: the twin that computes if a command names none.
      preset: the name of the model, as a trained run has its preset's.
      origin: where the weights came from, JSON; its "eos_token_id" (int, list or None) ends a generated text.
    """
    if (path / "tokenizer").is_dir():
        sync_tree(path / "tokenizer")
    description = describe(path, config, framework, preset, IMPORTED, vocab_size, imported=origin)
    identity = write_description(unfinished_import(path / "checkpoints"), description)
    publish_weights(path / "checkpoints", identity)
    write_description(path, description)
