"""Measures what changes the losses of a run: the same run again, and with settings that should change nothing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slm_core.studies.runner import train_once
from slm_core.studies.tables import markdown_table
from slm_core.training.metrics import read_metrics

BASE = {
    "model.dropout": 0.1, "train.steps": 100, "train.batch_size": 8, "train.log_every": 1, "train.eval_every": 50,
    "train.eval_batches": 5, "train.sample_tokens": 50, "run.threads": 2, "run.device": "cpu", "run.tensorboard": False,
    "memory.remat": "none", "memory.loss_chunk": 0, "train.micro_batch_size": 8,
}  # fmt: skip
"""The run that the others are compared with: the default preset with dropout, 100 updates."""


class Variation(NamedTuple):
    """Another way to do the run.

    Args:
      name: as the page calls it.
      settings: {dotted field: value} over BASE. "FOLDER" stands for an empty folder.
      bitwise: whether every loss must be the same number.
      twins: those that it is for.
    """

    name: str
    settings: Mapping[str, Any]
    bitwise: bool
    twins: Sequence[str] = ("torch", "flax")


VARIATIONS = (
    Variation("the same command again", {}, True),
    Variation("text prepared anew, in another folder", {"data.dir": "FOLDER"}, True),
    Variation("without evaluations, samples and checkpoints", {
        "train.eval_every": 0, "train.sample_every": 0, "train.checkpoint_every": 0,
    }, True),
    Variation("with details every 10 updates and TensorBoard", {
        "train.log_details_every": 10, "run.tensorboard": True,
    }, True),
    Variation("1 thread instead of 2", {"run.threads": 1}, False),
    Variation("micro-batches of 2", {"train.micro_batch_size": 2}, False),
    Variation("memory.remat=block", {"memory.remat": "block"}, False),
    Variation("memory.loss_chunk=256", {"memory.loss_chunk": 256}, False),
    Variation("model.attention.kernel=flash", {"model.attention.kernel": "flash"}, False),
    Variation("model.attention.kernel=dot_product", {"model.attention.kernel": "dot_product"}, False),
    Variation("run.compile=true", {"run.compile": True}, False, ("torch",)),
)  # fmt: skip


class Row(NamedTuple):
    """What a variation changed in a twin.

    Args:
      equal: updates whose losses are the same number, counted from the first update to the first that differs.
      first, last: differences of the first loss and of the last validation loss, nats.
    """

    variation: Variation
    twin: str
    equal: int
    first: float
    last: float


def measure(commands: Mapping[str, Sequence[str]], folder: Path, say: Callable[[str], None]) -> list[Row]:
    """Trains every variation in every twin, one after the other.

    Args:
      commands: {twin: the command that trains, as words}.
      folder: for the runs.
      say: is called with what begins.

    Raises:
      UserError: a run failed.
    """
    rows = []
    for twin, command in commands.items():
        say(f"{twin}: the run")
        base = _losses(command, BASE, folder / f"{twin}-base")
        for number, variation in enumerate(VARIATIONS):
            if twin in variation.twins:
                say(f"{twin}: {variation.name}")
                losses = _losses(command, BASE | dict(variation.settings), folder / f"{twin}-{number}")
                rows.append(Row(variation, twin, *compare(base, losses)))
    return rows


def _losses(command: Sequence[str], settings: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Trains a run and returns its lines of metrics."""
    placed = {"run.dir": str(folder), "run.name": "run", **settings}
    data = str(folder / "data")
    train_once(command, {name: data if value == "FOLDER" else value for name, value in placed.items()})
    return read_metrics(folder / "run" / "metrics.jsonl")


def compare(base: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> tuple[int, float, float]:
    """Returns `equal`, `first` and `last` of a row, from the lines of two metrics.jsonl."""
    train = [[row["loss"] for row in rows if row["split"] == "train"] for rows in (base, other)]
    same = next((i for i, (a, b) in enumerate(zip(*train, strict=True)) if a != b), len(train[0]))
    validation = [[row["loss"] for row in rows if row["split"] == "eval"][-1] for rows in (base, other)]
    return same, abs(train[0][0] - train[1][0]), abs(validation[0] - validation[1])


def failures(rows: Sequence[Row]) -> list[str]:
    """Lists what should be bitwise equal and is not."""
    return [
        f"{row.twin}: {row.variation.name}: the loss of update {row.equal + 1} differs"
        for row in rows
        if row.variation.bitwise and (row.last or row.equal < BASE["train.steps"])
    ]


def table(rows: Sequence[Row]) -> str:
    """Returns the table of the page, a line per variation and twin."""
    titles = ("what is different", "twin", "updates with the same loss", "first loss", "last validation loss")
    names = {"torch": "PyTorch", "flax": "Flax"}
    cells = [
        (
            row.variation.name,
            names[row.twin],
            f"{row.equal} of {BASE['train.steps']}",
            _nats(row.first),
            _nats(row.last),
        )
        for row in sorted(rows, key=lambda row: VARIATIONS.index(row.variation))
    ]
    return markdown_table(titles, cells)


def _nats(difference: float) -> str:
    return f"{difference:.1e}" if difference else "equal"
