"""Reads and writes the folder of a Hugging Face checkpoint: config.json and safetensors, in one file or in shards."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the dtype bfloat16, which safetensors looks up by name)
import numpy as np
from safetensors import SafetensorError, safe_open

from slm_core.errors import UserError
from slm_core.hf.family import Family
from slm_core.logging import say_once
from slm_core.manifest import NAME as MANIFEST
from slm_core.manifest import check_export
from slm_core.model.weights import SHARD_BYTES, Lazy, Weights, open_safetensors, save_tensors, shards

INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
ReadBin = Callable[[list[Path]], Weights]
"""Opens pytorch_model.bin files; PyTorch alone can."""
METADATA = {"format": "pt", "written_by": "lm-workbench"}
"""Of the safetensors of an export. transformers reads the format."""
FLOATS = ("float64", "float32", "float16", "bfloat16")


def read_tensors(folder: Path, read_bin: ReadBin | None = None, stem: str = "") -> Weights:
    """Opens the tensors of a folder by name, as float32 (float64 stays). Each is read when it is asked for.

    Args:
      read_bin: reads pytorch_model.bin files, if the folder has no safetensors; None: they are refused.
      stem: the beginning of the files' names, such as adapter_model; "": those of a checkpoint.

    Raises:
      UserError: there are no tensors, or a shard is damaged or missing; or, when it is read, a tensor is quantised.
    """
    if files := sorted(folder.glob(f"{stem}.safetensors")) if stem else safetensors_files(folder):
        return _as_floats(open_safetensors(files, "download it again"))
    if files := sorted(folder.glob(f"{stem}.bin")) if stem else _files(folder, BIN_INDEX, "pytorch_model*.bin"):
        if read_bin is None:
            raise UserError(f"{folder}: {files[0].name} is read by PyTorch: import with --framework torch")
        return _as_floats(read_bin(files))
    one = stem or "pytorch_model"
    raise UserError(f"{folder} has no {stem}.safetensors file and no {one}.bin: download one of them")


def _as_floats(stored: Weights) -> Weights:
    def read(name: str) -> np.ndarray:
        array = stored[name]
        if array.dtype.name not in FLOATS:
            raise UserError(f"tensor {name} is {array.dtype.name}: quantised checkpoints cannot be imported")
        return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)

    return Lazy({name: partial(read, name) for name in stored})


def safetensors_files(folder: Path) -> list[Path]:
    """Lists the safetensors of a folder, as its index names them. Raises UserError if one is missing."""
    return _files(folder, INDEX, "*.safetensors")


def _files(folder: Path, index: str, pattern: str) -> list[Path]:
    if not (folder / index).is_file():
        return sorted(folder.glob(pattern))
    names = sorted(set(read_json(folder / index).get("weight_map", {}).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {missing[0]}, which {index} names, is not there: download it")
    return [folder / name for name in names]


def check_folder(folder: Path) -> None:
    """Checks a folder by its manifest. One from elsewhere has none; that an export of ours lost its own is said.

    Raises:
      UserError: as `manifest.check_export` does.
    """
    if not (folder / MANIFEST).exists() and any(_is_ours(file) for file in sorted(folder.glob("*.safetensors"))[:1]):
        say_once(f"{folder}: has no {MANIFEST}, so nothing says whether its bytes are those that were written")
    check_export(folder)


def _is_ours(file: Path) -> bool:
    try:
        with safe_open(file, framework="np") as opened:
            return (opened.metadata() or {}).get("written_by") == METADATA["written_by"]
    except (OSError, SafetensorError):  # `read_tensors` says so
        return False


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises UserError if the file is missing or broken."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file} is not there: give the folder of a Hugging Face checkpoint") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): restore it") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} is not a JSON object: restore it")
    return values


def write_config(
    folder: Path, family: Family, written: dict[str, Any], vocab_size: int, tokens: dict[str, Any], dtype: str
) -> None:
    """Writes config.json. `written` are the family's fields, `tokens` the ids of special tokens."""
    values = {"architectures": [family.architecture], "model_type": family.model_type, "vocab_size": vocab_size}
    values |= dict.fromkeys(SPECIAL) | tokens
    (folder / "config.json").write_text(json.dumps(values | {"dtype": dtype} | written, indent=2) + "\n")


def write_tensors(
    folder: Path, items: Iterable[tuple[str, np.ndarray]], dtype: str, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes tensors into shards as they come, so that only one shard is in memory; then the index of all shards.

    Args:
      dtype: one of FLOATS.
    """
    stored, names, total = np.dtype(dtype), [], 0
    for number, shard in enumerate(shards(((name, x.astype(stored, copy=False)) for name, x in items), shard_bytes)):
        save_tensors(shard, folder / _part(number), METADATA)
        names.append(list(shard))
        total += sum(array.nbytes for array in shard.values())
    if len(names) == 1:
        (folder / _part(0)).rename(folder / "model.safetensors")
        return
    files = [f"model-{i + 1:05d}-of-{len(names):05d}.safetensors" for i in range(len(names))]
    for i, file in enumerate(files):
        (folder / _part(i)).rename(folder / file)
    weight_map = {name: file for shard, file in zip(names, files, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _part(number: int) -> str:
    return f"part-{number:05d}.safetensors"
