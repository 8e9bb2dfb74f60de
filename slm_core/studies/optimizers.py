"""Two optimizers on the same run: how their losses go, and what their states take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.errors import UserError
from slm_core.protocols import Engine
from slm_core.studies.throughput import markdown_table
from slm_core.training.schedules import learning_rates

Build = Callable[[Config, int], Engine]
WINDOW = 50
"""Updates that a smoothed loss is the mean of, or a tenth of the run where that is fewer."""


@dataclass(frozen=True)
class Curve:
    """A run with one optimizer.

    Args:
      kind: optim.kind.
      losses: of each update, nats a token.
      state_bytes: of the optimizer's state, without the parameters.
      parameters: numbers of the model.
    """

    kind: str
    losses: list[float]
    state_bytes: int
    parameters: int

    def smoothed(self) -> np.ndarray:
        """Returns the running means of the losses, [updates - window + 1]."""
        window = max(1, min(WINDOW, len(self.losses) // 10))
        return np.convolve(self.losses, np.full(window, 1 / window), mode="valid")


def with_optimizer(config: Config, kind: str, steps: int) -> tuple[Config, list[str]]:
    """Returns a config with another optimizer for so many updates, and one line about each field that this one leaves
    at its default because the optimizer does not read it.

    Raises:
      UserError: the config starts from another run, or is not valid with that optimizer or so many updates.
    """
    if config.finetune.base:
        raise UserError(f"finetune.base={config.finetune.base}: optimizers are compared from initial weights: unset it")
    other, notes = drop_unread(config, with_values(config, {"optim.kind": kind, "train.steps": steps}), ())
    validate(other)
    return other, notes


def measure(config: Config, build: Build, say: Callable[[str], None]) -> Curve:
    """Trains from the config's seed, on the config's data.

    Raises:
      UserError: the data cannot be prepared, or the machine lacks what the config asks for.
    """
    from slm_core import data

    kind = config.optim.kind
    dataset = data.prepare(config.data)
    batches = data.Batches(
        dataset, "train", seq_len=config.data.seq_len, batch_size=config.train.batch_size, seed=config.seed
    )
    engine = build(config, dataset.vocab_size)
    losses = []
    for step, lr in enumerate(learning_rates(config.optim, config.train.steps)):
        losses.append(engine.fetch(engine.train_step(next(batches), float(lr), step))["loss"])
        if (step + 1) % max(1, config.train.steps // 10) == 0:
            say(f"{kind}, update {step + 1}: loss {losses[-1]:.4f}")
    state = engine.export_state()
    sizes = {part: [a for name, a in state.items() if name.startswith(part)] for part in ("params/", "optim/")}
    return Curve(kind, losses, sum(a.nbytes for a in sizes["optim/"]), sum(a.size for a in sizes["params/"]))


def table(curves: Sequence[Curve]) -> str:
    """Returns the curves as a table; the first is the one that the others are compared with."""
    rows = []
    for curve in curves:
        distance = np.abs(curve.smoothed() - curves[0].smoothed()).max()
        cells = [f"{curve.smoothed()[-1]:.4f}", "" if curve is curves[0] else f"{distance:.4f}"]
        each = curve.state_bytes / curve.parameters
        rows.append([curve.kind, *cells, f"{curve.state_bytes:,}", f"{each:.2f}"])
    head = ["optimizer", "final loss, smoothed", "largest distance of the smoothed losses", "state, bytes"]
    return markdown_table([*head, "bytes a parameter"], rows)


def draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Writes a picture of the smoothed losses."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for curve, style in zip(curves, ("-", "--", ":", "-.") * len(curves), strict=False):
        smoothed = curve.smoothed()
        updates = np.arange(len(curve.losses) - len(smoothed) + 1, len(curve.losses) + 1)
        label = f"{curve.kind}: {curve.state_bytes / curve.parameters:.2f} bytes of state a parameter"
        axes.plot(updates, smoothed, style, label=label)
    axes.set(title=title, xlabel="update", ylabel="loss, nats a token, running mean")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
