"""Says how far a continued run may be from where it stopped, and checks it.

A checkpoint is the same bits in either twin, on any device. The arithmetic is not: sums in another order, or in another
dtype, round in another way. So a run that goes on in another twin, on another device or in another dtype evaluates the
model once before its first update. The loss must be that of the run's own evaluation at the same step.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from slm_core.errors import UserError
from slm_core.inference.evaluation import evaluate
from slm_core.protocols import Engine
from slm_core.runs.states import describe_state, read_writer
from slm_core.training.metrics import read_metrics

EXPECTED = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
"""{dtype: the largest deviation of the validation loss, over 1 or over the loss if that is larger}: the tolerance of
logits in docs/numerics.md."""

WHERE = ("framework", "device", "compute", "params")


def moved(state: Path, engine: Engine) -> dict[str, list[str]]:
    """Lists {what: [before, now]} of where a state was written and where it goes on, if they differ."""
    before, now = read_writer(state), describe_state(engine.config, engine.framework)
    pairs = {name: [getattr(before, name, ""), getattr(now, name)] for name in WHERE}
    return {name: pair for name, pair in pairs.items() if before and pair[0] != pair[1]}


def expected_deviation(state: Path, engine: Engine) -> float:
    """Returns the largest deviation that the dtypes of writer and reader allow; see `EXPECTED`."""
    described = (read_writer(state), describe_state(engine.config, engine.framework))
    return max(EXPECTED[dtype] for each in described if each for dtype in (each.params, each.compute))


def evaluated_loss(folder: Path, step: int) -> float | None:
    """Returns the validation loss that a run's record has of a step, if any."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if (row["step"], row["split"]) == (step, "eval")]
    return rows[-1]["loss"] if rows else None


def check_deviation(
    folder: Path,
    state: Path,
    step: int,
    engine: Engine,
    batches: Callable[[], Iterable[np.ndarray]],
    rows: int,
    comparable: bool,
) -> None:
    """Says before and checks after how far the loss of a continued run is from its last one.

    Args:
      folder: the run's folder, whose record may have an evaluation at `step`.
      state: the folder that the engine was restored from.
      batches: makes the batches of an evaluation, see `slm_core.inference.evaluation.evaluate`.
      rows: rows that go through the model at once.
      comparable: whether the record's evaluation was made of the same batches.

    Raises:
      UserError: the loss is farther away than expected.
    """
    changed = moved(state, engine)
    if not changed:
        return
    how = ", ".join(f"{name} {before} -> {now}" for name, (before, now) in changed.items())
    recorded = evaluated_loss(folder, step) if comparable else None
    if recorded is None:
        why = "no evaluation of these batches at that step" if comparable else "the validation batches are others"
        print(f"note: {how}: the loss after step {step} cannot be compared ({why})", flush=True)
        return
    expected = expected_deviation(state, engine) * max(1.0, abs(recorded))
    print(f"{how}: expected validation loss {recorded:.6f}, within {expected:.1e} nats", flush=True)
    nats, tokens, _ = evaluate(engine, batches(), rows)
    deviation = abs(nats / tokens - recorded)
    if not deviation <= expected:
        raise UserError(
            f"{state}: the validation loss is {nats / tokens:.6f} here and was {recorded:.6f} ({how}): {deviation:.1e}"
            f" nats away, and {expected:.1e} was expected; nothing was trained. Compare both twins with"
            " scripts/bisect_models.py, and check that the text is the same"
        )
    print(f"checked: validation loss {nats / tokens:.6f}, {deviation:.1e} nats away", flush=True)
