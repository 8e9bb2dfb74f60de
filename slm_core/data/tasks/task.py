"""What a synthetic task is: words, and a function that samples one sequence from a random generator."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

BLANK = "_"
"""The word of token 0 in every task. It stands where nothing is asked."""


class Options(NamedTuple):
    """What decides the sequences of a task, beside the random numbers.

    Args:
      length: tokens per sequence: `data.seq_len` + 1.
      symbols: different symbols; each task says what they are.
      items: things to remember per sequence or per question; each task says what they are.
      noise: share of noise, from 0 to 1.
      train_fraction: share of all questions that the train split asks, for a task that has finitely many.
      seed: of what stays the same in every sequence.
      training: whether the sequence is for the train split.
    """

    length: int
    symbols: int
    items: int
    noise: float
    train_fraction: float
    seed: int
    training: bool


class Least(NamedTuple):
    """The smallest options with which a task can be asked."""

    length: int
    symbols: int = 1
    items: int = 1


class Sequence(NamedTuple):
    """One sequence of a task.

    Args:
      tokens: ids, int [length].
      answers: bool [length]: whether the token is an answer, which follows from the tokens before it.
    """

    tokens: np.ndarray
    answers: np.ndarray


class Task(NamedTuple):
    """A task, as its file defines it.

    Args:
      words: names the tokens, in the order of their ids.
      least: says how large the options must be.
      sample: draws one sequence, with at least one answer.
    """

    words: Callable[[Options], list[str]]
    least: Callable[[Options], Least]
    sample: Callable[[np.random.Generator, Options], Sequence]


def numbered(prefix: str, count: int) -> list[str]:
    """Returns the words prefix0, prefix1, ..."""
    return [f"{prefix}{i}" for i in range(count)]


def filled(pairs: Iterable[tuple[int, bool]], length: int) -> Sequence:
    """Makes a sequence of (token, whether it is an answer), cut to `length` or filled up with blanks."""
    tokens, answers = np.zeros(length, np.int64), np.zeros(length, bool)
    for i, (token, answer) in zip(range(length), pairs, strict=False):
        tokens[i], answers[i] = token, answer
    return Sequence(tokens, answers)
