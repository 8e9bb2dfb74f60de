"""Measures the loss of a model on batches of tokens, and converts it to other units."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from slm_core.data.tokenizers import Tokenizer
from slm_core.protocols import Evaluation, Evaluator

VALIDATION_SEED = 0
"""Seed of the validation windows. It is not the run's: runs of different seeds are measured on the same text."""


class Measured(NamedTuple):
    """A loss, as sums.

    Args:
      nats: the sum of -log p(target).
      tokens: number of targets.
      correct: targets that the model predicts.
      text_bytes: UTF-8 bytes of the text of those targets; the end of a document has none.
    """

    nats: float
    tokens: int
    correct: int
    text_bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def accuracy(self) -> float:
        """The share of the targets that have the largest logit."""
        return self.correct / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite if that is too large for a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text. Models with different tokenizers can be compared by it. NaN: there is no text."""
        return self.nats / math.log(2) / self.text_bytes if self.text_bytes else math.nan


def evaluate(evaluator: Evaluator, batches: Iterable[np.ndarray], rows: int) -> Evaluation:
    """Returns the sums of an evaluation over batches.

    Args:
      batches: int32 [batch_size, length + 1], as from `slm_core.data.validation_batches`.
      rows: rows that go through the model at once.
    """
    total = Evaluation(0.0, 0, 0)
    for piece in _pieces(batches, rows):
        total = _added(total, evaluator.eval_step(piece))
    return total


def _added(total: Evaluation, piece: Evaluation) -> Evaluation:
    return Evaluation(total.nats + piece.nats, total.tokens + piece.tokens, total.correct + piece.correct)


def measure(
    evaluator: Evaluator,
    batches: Iterable[np.ndarray],
    tokenizer: Tokenizer,
    rows: int,
    report: Callable[[Measured], None] = lambda so_far: None,
) -> Measured:
    """Measures the loss of a model on batches, and counts the bytes of their text.

    Args:
      batches, rows: as in `evaluate`.
      tokenizer: turns the tokens into text.
      report: is called with the sums so far, each time that rows went through the model.
    """
    total, size = Evaluation(0.0, 0, 0), 0
    for piece in _pieces(batches, rows):
        total = _added(total, evaluator.eval_step(piece))
        size += sum(text_bytes(tokenizer, row) for row in piece)
        report(Measured(*total, size))
    return Measured(*total, size)


def _pieces(batches: Iterable[np.ndarray], rows: int) -> Iterable[np.ndarray]:
    for batch in batches:
        for first in range(0, len(batch), rows):
            yield batch[first : first + rows]


def text_bytes(tokenizer: Tokenizer, row: np.ndarray) -> int:
    """Counts the UTF-8 bytes of the text of a window's targets.

    A token of a byte is one byte. Other tokens count as the text of the window, minus that of its first token. A
    character that a window cuts in two counts as U+FFFD, 3 bytes. The words of a task are not text.
    """
    if tokenizer.kind == "words":
        return 0
    first = [token for token in row[:1].tolist() if token >= 0 and token != tokenizer.end]
    targets = [token for token in row[1:].tolist() if token >= 0 and token != tokenizer.end]
    if tokenizer.kind == "byte":
        return len(targets)
    return len(tokenizer.decode(first + targets).encode()) - len(tokenizer.decode(first).encode())
