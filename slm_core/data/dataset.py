"""A prepared dataset: two memory-mapped token files, a tokenizer and a manifest in one folder."""

import functools
import json
from pathlib import Path

import numpy as np

from slm_core.data.split import SIDES
from slm_core.data.tokenizers import Tokenizer, load_tokenizer
from slm_core.errors import UserError, nearest

FORMAT = 1
"""Version of the folder's layout and of every rule that decides which tokens are in it."""


class Dataset:
    """Opens a folder that `prepare` made.

    Attributes:
      folder: where it is.
      fingerprint: hash of the text, its order, the split and the tokenizer: equal where the tokens are equal.
      vocab_size: number of token ids.
      counts: documents, and tokens and bytes of text a split ("train_tokens", "validation_bytes", ...).
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if self.manifest is None:
            raise UserError(
                f"dataset {str(folder)!r}: its manifest cannot be read; delete the folder to prepare it anew"
            )
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
        """Returns all tokens of "train" or "validation", read-only, uint8, uint16 or uint32 [n]."""
        if split not in SIDES:
            raise UserError(f"split={split!r}: choose train or validation{nearest(split, SIDES)}")
        return np.memmap(self.folder / f"{split}.bin", self._dtype, mode="r")

    def _check(self, side: str) -> None:
        path = self.folder / f"{side}.bin"
        expected = self.counts[f"{side}_tokens"] * self._dtype.itemsize
        found = path.stat().st_size if path.exists() else 0
        if found != expected:
            raise UserError(
                f"dataset {str(self.folder)!r}: {path.name} has {found} bytes instead of {expected}; "
                "delete the folder to prepare it anew"
            )


def read_manifest(folder: Path) -> dict | None:
    """Returns the manifest of a prepared folder, None when there is none of this format."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest if manifest["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
