"""What training reads, and prepared text: two memory-mapped token files, a tokenizer and a manifest in one folder."""

import functools
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from slm_core.data.split import SIDES
from slm_core.data.tokenizers import Tokenizer, load_tokenizer
from slm_core.errors import UserError, nearest

FORMAT = 1
"""Version of the folder's layout and of every rule that decides which tokens are in it."""

_SIGNATURES = 16  # that a manifest keeps


class Windows(Protocol):
    """The rows of a split: row i is int32 [seq_len + 1], with `IGNORE` and `unscored` where there is no target."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class Dataset(Protocol):
    """What a model is trained and evaluated on: prepared text, or a synthetic task. Its `str` is for the user.

    Attributes:
      name: short and fit for a file name.
      fingerprint: equal fingerprints mean equal tokens.
      vocab_size: number of token ids.
      tokenizer: turns them into text.
    """

    name: str
    fingerprint: str
    vocab_size: int

    @property
    def tokenizer(self) -> Tokenizer: ...

    def windows(self, split: str, seq_len: int) -> Windows:
        """Opens the rows of "train" or "validation". Raises UserError if there is none."""

    def opening(self, length: int) -> list[int]:
        """Returns what samples continue: `length` tokens of the validation text, or the first question of a task."""


class TextDataset:
    """Opens a folder that `prepare` made; see `Dataset`.

    Attributes:
      folder: its path.
      name: that of the folder.
      fingerprint: hash of the text, its order, the split and the tokenizer. Equal fingerprints mean equal tokens.
      vocab_size: number of token ids.
      counts: documents, and tokens and bytes of text of each split ("train_tokens", "validation_bytes", ...).
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.name = self.folder.name
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

    def tokens(self, split: str) -> np.ndarray:
        """Maps all tokens of "train" or "validation", read-only: uint8, uint16 or uint32 [n]."""
        check_split(split)
        if not self.counts[f"{split}_tokens"]:  # an empty file cannot be mapped
            return np.empty(0, self._dtype)
        return np.memmap(self.folder / f"{split}.bin", self._dtype, mode="r")

    def windows(self, split: str, seq_len: int) -> "TextWindows":
        """Opens the windows of a split. Raises UserError if it is shorter than one window."""
        tokens = self.tokens(split)
        windows = TextWindows(tokens, seq_len)
        if not len(tokens) and self.counts[f"{split}_bytes"]:
            raise UserError(
                f"data.tokenizer: it makes no token of the {self.counts[f'{split}_bytes']} bytes in the {split} "
                f"split of {self.name}; give a tokenizer that knows its characters"
            )
        if not len(windows):
            raise UserError(
                f"data.seq_len={seq_len}: the {split} split of {self.name} has {len(tokens)} tokens and a window "
                f"takes {seq_len + 1}; give more text"
                + (" or a larger data.val_fraction" if split == "validation" else "")
                + ", or a shorter data.seq_len"
            )
        return windows

    def opening(self, length: int) -> list[int]:
        """Returns the first tokens of the validation text."""
        return [int(token) for token in self.tokens("validation")[:length]]

    def __str__(self) -> str:
        return str(self.folder)

    def _check(self, side: str) -> None:
        path = self.folder / f"{side}.bin"
        expected = self.counts[f"{side}_tokens"] * self._dtype.itemsize
        size = path.stat().st_size if path.exists() else 0
        if size != expected:
            raise UserError(
                f"dataset {str(self.folder)!r}: {path.name} has {size} bytes instead of {expected}; "
                "delete the folder to prepare it anew"
            )


class TextWindows:
    """Cuts a token file into windows. Window i has tokens [i * seq_len, (i + 1) * seq_len], int32 [seq_len + 1].

    Windows overlap by one token: the last target of one is the first input of the next.
    """

    def __init__(self, tokens: np.ndarray, seq_len: int):
        self._tokens, self._seq_len = np.asarray(tokens), seq_len

    def __len__(self) -> int:
        return max(len(self._tokens) - 1, 0) // self._seq_len

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * self._seq_len
        return self._tokens[start : start + self._seq_len + 1].astype(np.int32)


def check_split(split: str) -> None:
    """Raises UserError unless it is the name of a split."""
    if split not in SIDES:
        raise UserError(f"split={split!r}: choose train or validation{nearest(split, SIDES)}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a prepared folder; None if there is none of this format."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest if manifest["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_dataset(root: Path, key: str, value: str) -> TextDataset | None:
    """Finds the dataset in `root` whose manifest has `value` in its list `key`; None if there is none."""
    for path in sorted(root.glob("*/manifest.json")):
        manifest = read_manifest(path.parent)
        if manifest and value in manifest[key]:
            return TextDataset(path.parent)
    return None


def add_signature(dataset: TextDataset, signature: str) -> None:
    """Records one more signature by which the dataset is found; the oldest ones go."""
    manifest = dataset.manifest | {"signatures": [*dataset.manifest["signatures"][1 - _SIGNATURES :], signature]}
    temporary = dataset.folder / f"manifest.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, dataset.folder / "manifest.json")
