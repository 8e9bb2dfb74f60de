"""The data of a synthetic task: sequences made when they are asked for, and nothing on the disk."""

import numpy as np

from slm_core.config import Data
from slm_core.data.dataset import check_split
from slm_core.data.hashing import json_hash
from slm_core.data.split import SIDES
from slm_core.data.tasks import TASKS
from slm_core.data.tasks.task import Options, Task
from slm_core.data.tokenizers import Words
from slm_core.errors import UserError
from slm_core.protocols import unscored

FORMAT = 1
"""Version of every rule that decides which tokens are in a sequence."""

TRAIN, VALIDATION = 2**31, 3000
"""Sequences of the train split, if `data.task_train_size` is 0, and of the validation split (as Zoology's)."""


class TaskData:
    """The dataset of `data.source=task`; see `slm_core.data.dataset.Dataset`.

    Sequence i of a split is a function of the options, the split and i alone: the run's seed decides their order only.
    The splits draw from random streams that never meet.

    Attributes:
      name: that of the task.
      fingerprint: hash of the options. Sequences of one fingerprint and one length are equal.
      vocab_size: number of token ids.
      tokenizer: its words.
    """

    def __init__(self, data: Data):
        """Raises UserError if the task cannot be asked with the options."""
        self.name, self._task = data.task, TASKS[data.task]
        self._train_size = data.task_train_size or TRAIN
        options = task_options(data)
        check_least(data, self._task, options)
        self._options = options
        self.tokenizer = Words(self._task.words(options))
        self.vocab_size = self.tokenizer.vocab_size
        # Not the length: a run may be evaluated on shorter sequences.
        self.fingerprint = json_hash(FORMAT, self.name, self._train_size, options._replace(length=0))[:16]

    def __str__(self) -> str:
        return f"task {self.name}"

    def windows(self, split: str, seq_len: int) -> "Sequences":
        """Gives the sequences of "train" or "validation"."""
        check_split(split)
        options = self._options._replace(length=seq_len + 1, training=split == "train")
        return Sequences(self._task, options, self._train_size if options.training else VALIDATION)

    def opening(self, length: int) -> list[int]:
        """Returns the first validation sequence up to its first answer, whole: a cut question has no answer."""
        sequence = self.windows("validation", self._options.length - 1)[0].tolist()
        first = next(i for i, token in enumerate(sequence) if token >= 0)
        return [unscored(token) for token in sequence[:first]]


class Sequences:
    """Makes the sequences of a split: int32 [length], in which every token but the answers is `unscored`."""

    def __init__(self, task: Task, options: Options, count: int):
        self._task, self._options, self._count = task, options, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        split = SIDES.index("train" if self._options.training else "validation")
        key = np.array([self._options.seed, split], np.uint64)
        # Counters of two sequences differ in a high word, which no sequence counts up to.
        bits = np.random.Philox(key=key, counter=np.array([0, 0, index, 0], np.uint64))
        tokens, answers = self._task.sample(np.random.Generator(bits), self._options)
        return np.where(answers, tokens, unscored(tokens)).astype(np.int32)


def task_options(data: Data) -> Options:
    """Returns the options of a config's task, for the train split."""
    return Options(
        length=data.seq_len + 1, symbols=data.task_symbols, items=data.task_items, noise=data.task_noise,
        train_fraction=data.task_train_fraction, seed=data.task_seed, training=True,
    )  # fmt: skip


def task_vocabulary(data: Data) -> int:
    """Returns the number of token ids of a config's task."""
    return len(TASKS[data.task].words(task_options(data)))


def check_least(data: Data, task: Task, options: Options) -> None:
    """Raises UserError if the options are too small for the task."""
    least = task.least(options)
    wanted = {
        "data.seq_len": (data.seq_len, least.length - 1),
        "data.task_symbols": (options.symbols, least.symbols),
        "data.task_items": (options.items, least.items),
    }
    for field, (value, smallest) in wanted.items():
        if value < smallest:
            beside = "" if field == "data.task_items" else f" with data.task_items={options.items}"
            raise UserError(f"{field}={value}: data.task={data.task}{beside} needs at least {smallest}; give that")
