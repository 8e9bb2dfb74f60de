"""Compares optimizers on the same run: their losses, and the memory of their states."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.data import Batches, prepare
from slm_core.errors import UserError
from slm_core.protocols import Engine
from slm_core.studies.tables import markdown_table
from slm_core.training.schedules import learning_rates

Build = Callable[[Config, int], Engine]
WINDOW = 50
"""A smoothed loss is the mean of this many updates, or of a tenth of the run if that is fewer."""


@dataclass(frozen=True)
class LossCurve:
    """The loss curve of a run with one optimizer.

    Args:
      kind: optim.kind.
      losses: the loss of each update, in nats per token.
      state_bytes: size of the optimizer's state, without the parameters.
      parameters: number of parameters of the model.
    """

    kind: str
    losses: list[float]
    state_bytes: int
    parameters: int

    def smoothed(self) -> np.ndarray:
        """Computes the running means of the losses, [updates - window + 1]."""
        window = max(1, min(WINDOW, len(self.losses) // 10))
        return np.convolve(self.losses, np.full(window, 1 / window), mode="valid")


def with_optimizer(config: Config, kind: str, steps: int) -> tuple[Config, list[str]]:
    """Changes the optimizer and the number of updates of a config.

    Returns:
      The new config, and one line about each field that went back to its default, because the optimizer does not read
      it.

    Raises:
      UserError: the config starts from another run, or is not valid with that optimizer or so many updates.
    """
    if config.finetune.base:
        raise UserError(f"finetune.base={config.finetune.base}: optimizers are compared from initial weights; unset it")
    other, notes = drop_unread(config, with_values(config, {"optim.kind": kind, "train.steps": steps}), ())
    validate(other)
    return other, notes


def measure(config: Config, build: Build, say: Callable[[str], None]) -> LossCurve:
    """Trains from the config's seed, on the config's data, and records the losses.

    Raises:
      UserError: the data cannot be prepared, or the machine lacks what the config asks for.
    """

    kind = config.optim.kind
    dataset = prepare(config.data)
    batches = Batches(dataset, "train", config.data.seq_len, config.train.batch_size, config.seed)
    engine = build(config, dataset.vocab_size)
    losses = []
    for step, lr in enumerate(learning_rates(config.optim, config.train.steps)):
        losses.append(engine.fetch(engine.train_step(next(batches), float(lr), step))["loss"])
        if (step + 1) % max(1, config.train.steps // 10) == 0:
            say(f"{kind}, update {step + 1}: loss {losses[-1]:.4f}")
    state = engine.export_state()
    sizes = {part: [a for name, a in state.items() if name.startswith(part)] for part in ("params/", "optim/")}
    return LossCurve(kind, losses, sum(a.nbytes for a in sizes["optim/"]), sum(a.size for a in sizes["params/"]))


def table(loss_curves: Sequence[LossCurve]) -> str:
    """Writes a table of loss curves. The first is the one that the others are compared with."""
    rows = []
    for loss_curve in loss_curves:
        distance = np.abs(loss_curve.smoothed() - loss_curves[0].smoothed()).max()
        cells = [f"{loss_curve.smoothed()[-1]:.4f}", "" if loss_curve is loss_curves[0] else f"{distance:.4f}"]
        each = loss_curve.state_bytes / loss_curve.parameters
        rows.append([loss_curve.kind, *cells, f"{loss_curve.state_bytes:,}", f"{each:.2f}"])
    head = ["optimizer", "final loss, smoothed", "largest distance of the smoothed losses", "state, bytes"]
    return markdown_table([*head, "bytes per parameter"], rows)


def draw(loss_curves: Sequence[LossCurve], title: str, path: Path) -> None:
    """Draws a picture of the smoothed losses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for loss_curve, style in zip(loss_curves, ("-", "--", ":", "-.") * len(loss_curves), strict=False):
        smoothed = loss_curve.smoothed()
        updates = np.arange(len(loss_curve.losses) - len(smoothed) + 1, len(loss_curve.losses) + 1)
        label = f"{loss_curve.kind}: {loss_curve.state_bytes / loss_curve.parameters:.2f} bytes of state per parameter"
        axes.plot(updates, smoothed, style, label=label)
    axes.set(title=title, xlabel="update", ylabel="loss, nats per token, running mean")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
