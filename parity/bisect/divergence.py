"""Walks over the tensors that two models should share, up to the first that differs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.bisect.events import Event
from parity.distances import relative
from parity.tolerances import GRADIENT_FLOOR

TENSOR_TOLERANCES = {"float64": 1e-12, "float32": 1e-4, "float16": 0.03, "bfloat16": 0.1}
"""{precision: relative L2 error of a tensor that is still rounding}. Sound twins stay a factor of ten below."""

ACTIVATION_FLOOR = 1e-4
"""A tensor is measured against its own norm, or against this share of the largest norm of its stage if that is larger.
Some gradients are zero but for rounding."""

SHOWN_BEFORE, SHOWN_AFTER = 3, 2


@dataclass(frozen=True)
class Divergence:
    """The first tensor that differs.

    Args:
      stage: "init", "forward", "backward", "training", "update", "steps", "state" or "decode".
      module: the broken part: a module's path, "model" for the model's own code, "logits", "loss", "accumulation",
        "clipping", "optimizer", "balance", "scaler", "decoder" or "evaluation".
      tensor: which tensor of which module differs.
      shape: of the tensor.
      error: relative, L2; infinite for other shapes and for a tensor that only one side has.
      tolerance: the largest error that passes.
      position, total: the tensor is this one, counted from 1, of all that the stage compares.
      detail: parameters and settings of the module that differ.
      before, after: the tensors that agreed just before, and that differ next.
    """

    stage: str
    module: str
    tensor: str
    shape: tuple[int, ...]
    error: float
    tolerance: float
    position: int
    total: int
    detail: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One tensor of both sides; None if a side lacks it.

    Args:
      module: the part that is broken if this is the first tensor that differs.
      tensor: its name.
      left, right: the tensor; the right side is the one that errors are relative to.
      floor: the least norm that an error is relative to.
      tolerance: of this tensor; None: the walk's.
    """

    module: str
    tensor: str
    left: np.ndarray | None
    right: np.ndarray | None
    floor: float = 0.0
    tolerance: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the right side, or of the left one if there is no right one."""
        value = self.left if self.right is None else self.right
        return () if value is None else np.shape(value)

    @property
    def error(self) -> float:
        """The relative error; infinite for a tensor that one side lacks."""
        if self.left is None or self.right is None:
            return np.inf
        if np.array_equal(self.left, self.right, equal_nan=True):  # an overflow may be the same on both sides
            return 0.0
        return relative(self.left, self.right, self.floor)


@dataclass(frozen=True)
class Agreement:
    """The result of a walk: how many tensors it compared, the worst error and its place, and the divergence, if any."""

    total: int
    worst: float
    where: str
    divergence: Divergence | None = None


def walk(stage: str, comparisons: Iterable[Comparison], tolerance: float) -> Agreement:
    """Compares tensors in their order, up to the first that differs."""
    comparisons = list(comparisons)
    worst, where = 0.0, ""
    for i, comparison in enumerate(comparisons):
        error, limit = comparison.error, tolerance if comparison.tolerance is None else comparison.tolerance
        if not error <= limit:
            before = tuple(c.tensor for c in comparisons[max(0, i - SHOWN_BEFORE) : i])
            after = (c.tensor for c in comparisons[i + 1 :] if not c.error <= limit)
            shape = comparison.shape
            divergence = Divergence(
                stage, comparison.module, comparison.tensor, shape, error, limit, i + 1, len(comparisons),
                before=before,
                after=tuple(tensor for tensor, _ in zip(after, range(SHOWN_AFTER), strict=False)),
            )  # fmt: skip
            return Agreement(len(comparisons), error, comparison.tensor, divergence)
        if error > worst:
            worst, where = error, comparison.tensor
    return Agreement(len(comparisons), worst, where)


def joined(first: Agreement, second: Agreement) -> Agreement:
    """Joins the results of two walks, of which the first found no divergence."""
    worse = max(first, second, key=lambda agreement: agreement.worst)
    return Agreement(first.total + second.total, worse.worst, worse.where, second.divergence)


def trace_comparisons(stage: str, left: Sequence[Event], right: Sequence[Event]) -> list[Comparison]:
    """Returns the comparisons of one half of two traces, "forward" or "backward", in the order of the right one.

    If an output is wrong though all inputs and all children are right, the module is broken. If an input is wrong, the
    module whose code made it is broken. In the backward half it is the other way round: the module makes the gradients
    of its inputs and parameters, and the code that uses its output makes the gradient of that.
    """
    left_events = {event.key: event for event in left if event.stage == stage}
    events = [event for event in right if event.stage == stage]
    norms = [float(np.linalg.norm(np.asarray(e.value, np.float64))) for e in events]
    activations = max((n for e, n in zip(events, norms, strict=True) if e.side), default=0.0)
    parameters = float(np.linalg.norm([n for e, n in zip(events, norms, strict=True) if not e.side]))
    comparisons = []
    for event in events:
        other = left_events.pop(event.key, None)
        floor = ACTIVATION_FLOOR * activations if event.side else GRADIENT_FLOOR * parameters
        comparisons.append(Comparison(blamed(event), shown(event), other.value if other else None, event.value, floor))
    return comparisons + [Comparison(blamed(event), shown(event), event.value, None) for event in left_events.values()]


def blamed(event: Event) -> str:
    """Returns the module that is broken if this is the first tensor that differs."""
    inside = event.side != ("input" if event.stage == "forward" else "output")
    return (event.path if inside else event.caller) or "model"


def shown(event: Event) -> str:
    """Returns the name of a tensor: "layers.0.attention: gradient of output", with the call's number from 2 on."""
    call = f" of call {event.call + 1}" if event.call else ""
    return f"{event.path or 'model'}: {event.tensor}{call}"
