"""Checks a prepared dataset: every byte of its files, and that no token id is beyond the vocabulary.

Reading a dataset costs about 0.2 s per GB. So files that are larger together than `SMALL` are not read again while
their sizes and times stay as they were: `.checked` beside the manifest remembers them. scripts/verify.py
always reads them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from slm_core.errors import UserError
from slm_core.files import stamp, write_atomically
from slm_core.json_files import Schema, read_json
from slm_core.manifest import Files, damaged_files

SMALL = 2**30
"""Bytes up to which all files are read at each start."""

CHECKED = ".checked"
_BLOCK = 1 << 20  # tokens


class _Checked(Schema):
    """The content of `.checked`."""

    files: dict[str, list[int]]


def dataset_damage(folder: Path, files: Files, tokens: dict[str, str], vocab_size: int) -> list[str]:
    """Reads every file of a dataset. Returns what is wrong, one text per file.

    Args:
      tokens: {name of a token file: its integer type}.
    """
    small = {name: entry for name, entry in files.items() if name not in tokens}
    wrong = [f"{name} is not one of its files" for name in tokens if name not in files]
    wrong += damaged_files(folder, {name: files[name] for name in tokens if name in files}, quick=True, others=True)
    wrong += damaged_files(folder, small, others=True)
    if wrong:
        return wrong
    return [line for name, dtype in tokens.items() if (line := _token_damage(folder, name, dtype, files, vocab_size))]


def check_dataset(folder: Path, files: Files, tokens: dict[str, str], vocab_size: int) -> None:
    """Checks a dataset when it is opened; see `dataset_damage`. A large one is read again only if a file was written.

    Raises:
      UserError: a file is missing or damaged, or has a token that the vocabulary does not have.
    """
    stamps = _stamps(folder, files)
    large = sum(entry.bytes for entry in files.values()) > SMALL
    if large and stamps and _remembered(folder) == stamps:
        return
    if wrong := dataset_damage(folder, files, tokens, vocab_size):
        raise UserError(f"dataset {str(folder)!r}: {wrong[0]}; delete the folder to prepare it anew")
    if large:
        _remember(folder, stamps)


def _token_damage(folder: Path, name: str, dtype: str, files: Files, vocab_size: int) -> str:
    """Reads a token file once, for its checksum and its largest id. Says what is wrong; "": nothing."""
    size = np.dtype(dtype).itemsize
    if files[name].bytes % size:
        return f"{name} has {files[name].bytes} bytes, which are not whole tokens of {dtype}"
    digest, largest = xxhash.xxh3_64(), 0
    try:
        with (folder / name).open("rb") as file:
            while block := file.read(_BLOCK * size):
                digest.update(block)
                if vocab_size < 2 ** (8 * size) and len(block) % size == 0:
                    largest = max(largest, int(np.frombuffer(block, dtype).max()))
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    if digest.hexdigest() != files[name].xxh3:
        return f"{name} has changed: its checksum differs"
    return f"{name} has token {largest}, the vocabulary ends at {vocab_size - 1}" if largest >= vocab_size else ""


def _stamps(folder: Path, files: Files) -> dict[str, list[int]]:
    """Returns what changes when a file is written; {}: a file is missing."""
    try:
        return {name: list(stamp(folder / name)) for name in files}
    except OSError:
        return {}


def _remembered(folder: Path) -> Any:
    try:
        return read_json(folder / CHECKED, _Checked, "").files
    except UserError:
        return None


def _remember(folder: Path, stamps: dict[str, list[int]]) -> None:
    import msgspec

    try:
        write_atomically(folder / CHECKED, msgspec.json.encode(_Checked(files=stamps)).decode() + "\n")
    except OSError:  # a folder that cannot be written is read at each start
        return
