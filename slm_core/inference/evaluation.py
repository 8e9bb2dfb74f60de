"""The validation loss of a run that is on disk: on which text, in which tokens, and in what units."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from slm_core.config import Config, Data
from slm_core.config.fields import reads
from slm_core.config.validation import validate
from slm_core.data import Dataset, load_tokenizer, prepare
from slm_core.data.tokenizers import Tokenizer
from slm_core.errors import UserError
from slm_core.protocols import IGNORE, Evaluator
from slm_core.runs.folder import SavedRun


class Measured(NamedTuple):
    """A loss, as sums.

    Args:
      nats: the sum of -log p(target).
      tokens: targets.
      text_bytes: UTF-8 bytes of the text that they stand for; ends of documents stand for none.
    """

    nats: float
    tokens: int
    text_bytes: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """What models of different tokenizers can be compared by."""
        return self.nats / math.log(2) / self.text_bytes


def open_text(saved: SavedRun, given: Mapping[str, Any], seq_len: int) -> Dataset:
    """Prepares the text to evaluate a run on, in the run's own tokens.

    Args:
      given: fields of the config's data section that say which text; {}: the one that the run was trained on, of an
        imported run the standard library's source.
      seq_len: tokens that a window is to hold.

    Raises:
      UserError: the text cannot be prepared, or the run's tokenizer cannot read it.
    """
    own = not given and saved.imported is None
    base = Data(dir=saved.config.data.dir) if "source" in given else saved.config.data
    data = replace(base, seq_len=seq_len, **given)
    if own:
        dataset = prepare(data)
        if dataset.fingerprint != saved.fingerprint:
            raise UserError(
                f"data.source={data.source!r}: the text changed since {saved.folder} was trained on it (fingerprint "
                f"{saved.fingerprint}, now {dataset.fingerprint}); to evaluate on what it is now, give --source"
            )
        return dataset
    data = replace(data, tokenizer=own_tokenizer(saved), vocab_size=Data().vocab_size)
    if not data.path and reads(data, "path"):
        raise UserError(f"data.source={data.source!r} reads a path: give --path=FILE_FOLDER_OR_GLOB")
    validate(Config(data=data), [f"data.{name}" for name in given])
    dataset = prepare(data)
    if dataset.vocab_size > saved.vocab_size:
        raise UserError(
            f"{saved.folder}: its tokenizer has {dataset.vocab_size} tokens and its model {saved.vocab_size}; restore "
            "the tokenizer that the model was trained with"
        )
    return dataset


def own_tokenizer(saved: SavedRun) -> str:
    """Returns the value of data.tokenizer that stands for a run's own. Raises UserError when there is none."""
    kind = load_tokenizer(saved.folder / "tokenizer").kind
    if kind == "char":
        raise UserError(
            f"{saved.folder}: its tokens are the characters of its own text (data.tokenizer='char'), so it can be "
            "evaluated on that text alone; leave out the flags that name another"
        )
    return kind if kind == "byte" else f"file:{saved.folder / 'tokenizer' / 'tokenizer.json'}"


def measure(
    evaluator: Evaluator,
    batches: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    rows: int,
    report: Callable[[Measured], None] = lambda so_far: None,
) -> Measured:
    """Returns the loss of a model on batches.

    Args:
      batches: int32 [rows, length + 1], as `slm_core.data.validation_batches` gives them.
      rows: how many go through the model at once.
      report: is told the sums so far, after each of these pieces.
    """
    so_far = Measured(0.0, 0, 0)
    for batch in batches:
        for first in range(0, len(batch), rows):
            piece = batch[first : first + rows]
            nats, tokens = evaluator.eval_step(piece)
            size = sum(text_bytes(tokenizer, row) for row in piece)
            so_far = Measured(so_far.nats + nats, so_far.tokens + tokens, so_far.text_bytes + size)
            report(so_far)
    return so_far


def text_bytes(tokenizer: Tokenizer, row: np.ndarray) -> int:
    """Returns the UTF-8 bytes of the text of a window's targets.

    Tokens of bytes are counted; others are the text of the window, less that of its first token. A character that a
    window cuts in two counts as U+FFFD, 3 bytes.
    """
    no_text = (IGNORE, tokenizer.end)
    first = [token for token in row[:1].tolist() if token not in no_text]
    targets = [token for token in row[1:].tolist() if token not in no_text]
    if tokenizer.kind == "byte":
        return len(targets)
    return len(tokenizer.decode(first + targets).encode()) - len(tokenizer.decode(first).encode())
