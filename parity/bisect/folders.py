"""Opens models in folders: a run, one checkpoint of a run, or a Hugging Face checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import slm_flax.evaluator
import slm_torch.evaluator
import slm_torch.model
import slm_torch.params
from parity.bisect.models import FlaxTwin, TorchTwin, Traceable
from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.json_files import read_json
from slm_core.model.weights import Weights
from slm_core.runs.checkpoints import list_checkpoints
from slm_core.runs.saved import load_run
from slm_core.runs.weights import checkpoint_weights, without_adapters

ROWS, LENGTH = 2, 32


@dataclass(frozen=True)
class Source:
    """A model on disk.

    Args:
      name: as the user gave it.
      config: of our twin of it.
      weights: of our twin, by canonical name.
      framework: the twin that trained it; "" of a Hugging Face checkpoint.
      folder: where it is.
    """

    name: str
    config: Config
    vocab_size: int
    weights: Weights
    framework: str
    folder: Path


def open_source(flag: str, text: str) -> Source:
    """Opens a run, a checkpoint of a run or a Hugging Face checkpoint.

    Raises:
      UserError: the folder is none of the three; the message names the flag.
    """
    folder = Path(text)
    if not folder.is_dir():
        raise UserError(f"--{flag}={text}: no such folder; give a run, a checkpoint of a run or a Hugging Face folder")
    if folder.resolve().parent.name == "checkpoints":
        return _checkpoint(flag, text, folder.resolve())
    if is_hugging_face(folder):
        from slm_core.hf.importing import open_folder

        imported, weights = open_folder(folder)
        return Source(text, imported.config, imported.vocab_size, dict(weights), "", folder)
    return _run(text, folder, None)


def is_hugging_face(folder: Path) -> bool:
    """Says whether a folder's config.json has a model_type."""
    try:
        return "model_type" in read_json(folder / "config.json", dict[str, Any], "")
    except UserError:
        return False


def _checkpoint(flag: str, text: str, folder: Path) -> Source:
    if folder not in list_checkpoints(folder.parent):
        raise UserError(f"--{flag}={text}: not a complete checkpoint; its name must be step-NUMBER")
    return _run(text, folder.parent.parent, folder)


def _run(text: str, run: Path, checkpoint: Path | None) -> Source:
    saved = load_run(run)
    weights = checkpoint_weights(checkpoint or saved.checkpoint, saved.config)
    return Source(text, without_adapters(saved.config), saved.vocab_size, weights, saved.framework, run)


def twin_of(source: Source, framework: str, precision: str, name: str) -> Traceable:
    """Returns our twin with a source's weights, on the CPU."""
    values = {"precision.params": precision, "precision.compute": precision, "run.device": "cpu", "run.compile": False}
    config = with_values(source.config, values)
    if framework == "torch":
        return TorchTwin(slm_torch.evaluator.Evaluator(config, source.vocab_size, source.weights), name)
    return FlaxTwin(slm_flax.evaluator.Evaluator(config, source.vocab_size, source.weights), name)


def check_shapes(left: Source, right: Source) -> None:
    """Raises UserError, naming the first parameter that one model lacks or has in another shape."""
    a, b = _shapes(left), _shapes(right)
    for name in [*a, *b]:
        if a.get(name) != b.get(name):
            shown = [list(shapes[name]) if name in shapes else "absent" for shapes in (a, b)]
            raise UserError(
                f"--against={right.name}: parameter {name} is {shown[1]} there and {shown[0]} in {left.name}: compare"
                " models of one shape"
            )


def _shapes(source: Source) -> Mapping[str, tuple[int, ...]]:
    model = slm_torch.model.Transformer(source.config, source.vocab_size, torch.float32)
    return {name: shape for name, (shape, _) in slm_torch.params.specs(model).items()}


def batch(left: Source, right: Source) -> np.ndarray:
    """Draws random tokens that both models know, int32 [rows, length + 1]; few, because models may be large."""
    length = min(left.config.data.seq_len, right.config.data.seq_len, LENGTH)
    known = min(left.vocab_size, right.vocab_size)
    return np.random.default_rng(0).integers(0, known, (ROWS, length + 1), dtype=np.int32)
