"""Imports a Hugging Face checkpoint as a run, and exports a run as a checkpoint, for `scripts/convert.py`."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.errors import UserError
from slm_core.hf import exporting, family_of
from slm_core.hf.family import Family
from slm_core.hf.folder import SPECIAL, ReadBin, write_config, write_tensors
from slm_core.hf.importing import Imported, open_checkpoint
from slm_core.hf.tokenizer import export_tokenizer
from slm_core.manifest import commit_folder
from slm_core.model.weights import Weights, write_weights
from slm_core.runs.checkpoints import checkpoint_step
from slm_core.runs.imported import describe_imported, make_imported
from slm_core.runs.saved import SavedRun

Items = Iterator[tuple[str, np.ndarray]]
Progress = Callable[[Items, str], Items]
"""Passes items on and shows how far they are."""


def import_run(
    source: Path,
    run: Path,
    framework: str,
    context: int,
    progress: Progress,
    base: str = "",
    read_bin: ReadBin | None = None,
    as_lora: bool = False,
) -> Imported:
    """Makes a run from a Hugging Face checkpoint. After an interruption its folder is not a run.

    Args:
      source: folder of the checkpoint or of a PEFT adapter, or a GGUF file.
      run: new folder, models/NAME.
      framework: the twin of the run.
      context: tokens; 0: the checkpoint's, at most `importing.CONTEXT`.
      base, read_bin, as_lora: as in `open_checkpoint`.

    Raises:
      UserError: the checkpoint is damaged or of no family, the schema cannot express it, or `run` is taken.
    """
    imported, items, write_tokenizer = open_checkpoint(source, context, base, read_bin, as_lora)
    weights = make_imported(run)
    note = write_tokenizer(run / "tokenizer")
    values: dict[str, Any] = {"run.dir": str(run.parent), "run.name": run.name}
    if not note:
        values["data.tokenizer"] = f"file:{run / 'tokenizer' / 'tokenizer.json'}"
    config = with_values(imported.config, values)
    validate(config)
    write_weights(weights, progress(items, "importing"))
    family = imported.family.model_type
    origin = {"from": source.name, "model_type": family, **imported.tokens}
    describe_imported(run, config, framework, f"hf-{family}", imported.vocab_size, origin)
    return replace(imported, config=config, notes=[*imported.notes, note] if note else imported.notes)


def export_run(saved: SavedRun, weights: Weights, target: Path, family: str, dtype: str, progress: Progress) -> Family:
    """Writes the folder of a Hugging Face checkpoint. It appears only when it is complete.

    Args:
      weights: the run's weights, by canonical name.
      target: new folder.
      family: model_type to write; "": the first that expresses the config.
      dtype: the type of the tensors.

    Raises:
      UserError: no family expresses the config, or `target` is taken.
    """
    if family:
        family_of(family)
    chosen, written = exporting.choose(saved.config, family)
    tokens = {name: value for name, value in (saved.tokens or {}).items() if name in SPECIAL}
    with export_folder(saved, target) as folder:
        export_tokenizer(saved.folder / "tokenizer", folder, saved.config.data.seq_len)
        write_config(folder, chosen, written, saved.vocab_size, tokens, dtype)
        write_tensors(folder, progress(exporting.convert(chosen, written, weights, saved.config), "exporting"), dtype)
    return chosen


def export_adapter(saved: SavedRun, target: Path, family: str, dtype: str, base: str) -> tuple[Family, int]:
    """Writes the adapters of a run as the folder of a PEFT adapter, without the matrices that they are beside.

    Args:
      base: the checkpoint that the adapter is of, for its config; "": none.
      target, family, dtype: as in `export_run`.

    Returns:
      The family, and the number of adapted modules.

    Raises:
      UserError: the run has no adapters, no family expresses the config, or `target` is taken.
    """
    from slm_core.hf.lora_export import write_adapter
    from slm_core.runs.weights import adapter_weights

    if family:
        family_of(family)
    adapters, config = adapter_weights(saved), saved.config
    chosen, written = exporting.choose(config, family)
    with export_folder(saved, target) as folder:
        export_tokenizer(saved.folder / "tokenizer", folder, config.data.seq_len)
        read = replace(chosen.config(written), finetune=config.finetune)
        count = write_adapter(folder, chosen, read, saved.vocab_size, adapters, base, dtype)
    return chosen, count


@contextmanager
def export_folder(saved: SavedRun, target: Path) -> Iterator[Path]:
    """Gives an empty folder to write a run's export into. It gets its manifest and its name when all is written.

    Raises:
      UserError: `target` is taken, or cannot be written.
    """
    if target.exists():
        raise UserError(f"--export={target} is there already: choose another folder, or delete it")
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        commit_folder(temporary, target, "export", checkpoint_step(saved.checkpoint), *saved.identity)
    except OSError as error:
        raise UserError(f"--export={target}: cannot be written ({error.strerror}): choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
