"""What training reads, and prepared text: two memory-mapped token files, a tokenizer and a manifest in one folder."""

import functools
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np

from slm_core.config import Data
from slm_core.data.dataset_check import check_dataset
from slm_core.data.documents import document_starts, marked, packed_starts
from slm_core.data.split import SIDES
from slm_core.data.tokenizers import Tokenizer, load_tokenizer
from slm_core.errors import UserError, nearest
from slm_core.json_files import Broken, Count, Schema, read_json, read_sealed, write_sealed
from slm_core.logging import say_once
from slm_core.manifest import NAME, FileSum

FORMAT = 1
"""Version of the folder's layout and of every rule that decides which tokens are in it."""

_SIGNATURES = 16  # that a manifest keeps


class Manifest(Schema):
    """The fields of a dataset's manifest.json."""

    format: Literal[1]
    fingerprint: str
    signatures: list[str]
    contents: list[str]
    source: dict[str, Any]
    settings: dict[str, Any]
    vocab_size: Annotated[int, msgspec.Meta(ge=1)]
    dtype: Literal["uint8", "uint16", "uint32"]
    end_of_document: Count | None
    counts: dict[str, Count]
    bpe_sample_bytes: Count | None
    versions: dict[str, str]
    files: dict[str, FileSum]
    checksum: str


class _AnyFormat(msgspec.Struct):
    format: int


class Windows(Protocol):
    """The rows of a split: row i is int32 [seq_len + 1].

    Where there is no target, it has `IGNORE`, `unscored` or `first_of_document`.
    """

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
      document_mask: whether rows tell documents apart: `first_of_document` marks where one begins.
      packing: "documents": each training row begins with a document; "stream": rows take one token after the other.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.name = self.folder.name
        manifest = read_sealed(self.folder / NAME, Manifest, "delete the folder to prepare it anew")
        self.manifest: dict[str, Any] = msgspec.structs.asdict(manifest)
        self.fingerprint = manifest.fingerprint
        self.vocab_size = manifest.vocab_size
        self.counts = manifest.counts
        self.document_mask, self.packing = False, "stream"
        self._dtype = np.dtype(manifest.dtype)
        check_dataset(self.folder, manifest.files, token_files(manifest.dtype), manifest.vocab_size)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, loaded at first use."""
        return load_tokenizer(self.folder / "tokenizer")

    @functools.cached_property
    def _train_starts(self) -> np.ndarray:
        """Where the documents of the training text begin, found once: the whole file is searched."""
        return document_starts(self.tokens("train"), self.manifest["end_of_document"])

    def tokens(self, split: str) -> np.ndarray:
        """Maps all tokens of "train" or "validation", read-only: uint8, uint16 or uint32 [n].

        Raises:
          UserError: the file is gone.
        """
        check_split(split)
        if not self.counts[f"{split}_tokens"]:  # an empty file cannot be mapped
            return np.empty(0, self._dtype)
        try:
            return np.memmap(self.folder / f"{split}.bin", self._dtype, mode="r")
        except FileNotFoundError:
            raise UserError(
                f"{self.folder}: {split}.bin was removed meanwhile; run the same command again to prepare it anew"
            ) from None

    def tell_documents_apart(self, data: Data) -> "TextDataset":
        """Does what `data.document_mask` and `data.packing` ask for. Returns itself.

        Raises:
          UserError: nothing in the tokens tells documents apart.
        """
        self.document_mask, self.packing = data.document_mask, data.packing
        field = "data.document_mask=True" if data.document_mask else f"data.packing={data.packing}"
        if self.manifest["end_of_document"] is not None or (not data.document_mask and data.packing == "stream"):
            return self
        single = self.counts["documents"] == 1
        raise UserError(
            f"{field}: {self.name} has no end-of-document token, because "
            + ("it is a single document" if single else f"data.tokenizer={data.tokenizer} has none")
            + "; leave the field out, or give "
            + ("text of several documents" if single else "a tokenizer with <|endoftext|>")
        )

    def windows(self, split: str, seq_len: int) -> "TextWindows":
        """Opens the windows of a split. Raises UserError if it is shorter than one window."""
        tokens, end = self.tokens(split), self.manifest["end_of_document"]
        starts = None
        if self.packing == "documents" and split == "train":  # all packings are measured on the same rows
            starts = packed_starts(self._train_starts, seq_len, len(tokens))
        windows = TextWindows(tokens, seq_len, starts, end if self.document_mask else None)
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


class TextWindows:
    """Cuts a token file into windows. Window i has tokens [i * seq_len, (i + 1) * seq_len], int32 [seq_len + 1].

    Windows overlap by one token: the last target of one is the first input of the next.

    Args:
      tokens: of the file.
      seq_len: tokens of context.
      starts: the first token of each window, if windows begin elsewhere.
      end: the token that ends a document, if the first tokens of documents are to be marked.
    """

    def __init__(self, tokens: np.ndarray, seq_len: int, starts: np.ndarray | None = None, end: int | None = None):
        self._tokens, self._seq_len, self._starts, self._end = np.asarray(tokens), seq_len, starts, end

    def __len__(self) -> int:
        return max(len(self._tokens) - 1, 0) // self._seq_len if self._starts is None else len(self._starts)

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * self._seq_len if self._starts is None else int(self._starts[index])
        row = self._tokens[start : start + self._seq_len + 1].astype(np.int32)
        return row if self._end is None else marked(row, self._end)

    @property
    def left_out(self) -> float:
        """The share of the file's tokens that no window reads."""
        return 1 - len(self) * self._seq_len / max(len(self._tokens) - 1, 1)


def check_split(split: str) -> None:
    """Raises UserError unless it is the name of a split."""
    if split not in SIDES:
        raise UserError(f"split={split!r}: choose train or validation{nearest(split, SIDES)}")


def token_files(dtype: str) -> dict[str, str]:
    """Returns {name of a token file: its integer type} of a dataset."""
    return {f"{side}.bin": dtype for side in SIDES}


def read_manifest(folder: Path) -> Manifest | None:
    """Reads the manifest of a prepared folder; None if it is of another format, or damaged, which is said."""
    remedy = "it is not used; delete the folder"
    try:
        if read_json(folder / NAME, _AnyFormat, remedy).format != FORMAT:
            return None
        return read_sealed(folder / NAME, Manifest, remedy)
    except Broken as error:
        say_once(f"dataset {error}")
        return None


def find_dataset(root: Path, key: str, value: str) -> TextDataset | None:
    """Finds the dataset in `root` whose manifest has `value` in its list `key`; None if there is none."""
    for path in sorted(root.glob(f"*/{NAME}")):
        manifest = read_manifest(path.parent)
        if manifest and value in getattr(manifest, key):
            return TextDataset(path.parent)
    return None


def add_signature(dataset: TextDataset, signature: str) -> None:
    """Records one more signature by which the dataset is found; the oldest ones go."""
    signatures = [*dataset.manifest["signatures"][1 - _SIGNATURES :], signature]
    write_sealed(dataset.folder / NAME, dataset.manifest | {"signatures": signatures})
