"""A prepared dataset: two memory-mapped token files, a tokenizer and a manifest in one folder."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from slm_core.data.split import SIDES
from slm_core.data.tokenizers import Tokenizer, load_tokenizer
from slm_core.errors import UserError, nearest

FORMAT = 1
"""Version of the folder's layout and of every rule that decides which tokens are in it."""

_SIGNATURES = 16  # that a manifest keeps


class Dataset:
    """Opens a folder that `prepare` made.

    Attributes:
      folder: its path.
      fingerprint: hash of the text, its order, the split and the tokenizer. Equal fingerprints mean equal tokens.
      vocab_size: number of token ids.
      counts: documents, and tokens and bytes of text of each split ("train_tokens", "validation_bytes", ...).
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise UserError(
                f"dataset {str(folder)!r}: its manifest cannot be read; delete the folder to prepare it anew"
            )
        self.manifest: dict[str, Any] = manifest
        self.fingerprint: str = self.manifest["fingerprint"]
        self.vocab_size: int = self.manifest["vocab_size"]
        self.counts: dict[str, int] = self.manifest["counts"]
        self._dtype = np.dtype(self.manifest["dtype"])
        for side in SIDES:
            self._check(side)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, loaded at first use."""
        return load_tokenizer(self.folder / "tokenizer")

    def tokens(self, split: str) -> np.memmap:
        """Maps all tokens of "train" or "validation", read-only: uint8, uint16 or uint32 [n]."""
        if split not in SIDES:
            raise UserError(f"split={split!r}: choose train or validation{nearest(split, SIDES)}")
        return np.memmap(self.folder / f"{split}.bin", self._dtype, mode="r")

    def _check(self, side: str) -> None:
        path = self.folder / f"{side}.bin"
        expected = self.counts[f"{side}_tokens"] * self._dtype.itemsize
        size = path.stat().st_size if path.exists() else 0
        if size != expected:
            raise UserError(
                f"dataset {str(self.folder)!r}: {path.name} has {size} bytes instead of {expected}; "
                "delete the folder to prepare it anew"
            )


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a prepared folder; None if there is none of this format."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest if manifest["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_dataset(root: Path, key: str, value: str) -> Dataset | None:
    """Finds the dataset in `root` whose manifest has `value` in its list `key`; None if there is none."""
    for path in sorted(root.glob("*/manifest.json")):
        manifest = read_manifest(path.parent)
        if manifest and value in manifest[key]:
            return Dataset(path.parent)
    return None


def add_signature(dataset: Dataset, signature: str) -> None:
    """Records one more signature by which the dataset is found; the oldest ones go."""
    manifest = dataset.manifest | {"signatures": [*dataset.manifest["signatures"][1 - _SIGNATURES :], signature]}
    temporary = dataset.folder / f"manifest.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, dataset.folder / "manifest.json")
