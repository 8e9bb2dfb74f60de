"""`scripts/parity.py --bisect`: the twins of a config, or two folders."""

import numpy as np

from parity.bisect.divergence import TOLERANCES
from parity.bisect.events import LOGITS, Event
from parity.bisect.folders import Source, batch, check_shapes, open_source, twin_of
from parity.bisect.models import FlaxTwin, TorchTwin, Traceable, passes
from parity.bisect.pairs import stages
from parity.bisect.show import Report
from parity.bisect.twins import parameter_gradients
from parity.budgets import BUDGETS, GRADIENT_FLOOR
from parity.cells import Cell
from parity.errors import of_order_one, relative
from parity.ladder import Result, measure, rungs_of
from parity.pair import Pair, pin_threads

HUGGING_FACE_TOLERANCE = 1e-4
"""The classes of transformers compute rotations, and most norms, in float32 whatever the model's dtype."""


def bisect_cell(cell: Cell, precision: str) -> bool:
    """Bisects the twins of a cell and prints what is found. Returns whether they agree."""
    pin_threads()
    pair = Pair(cell, precision)
    left, right = TorchTwin(pair.torch), FlaxTwin(pair.flax)
    report = Report(left, right, f"{cell.name}, {precision}")
    divergence = report.follow(stages(pair))
    if divergence:
        report.conclude(divergence, list(measure(pair, rungs_of(cell, precision))))
    return divergence is None


def bisect_folders(run: str, against: str, framework: str, precision: str) -> bool:
    """Bisects two models from folders and prints what is found. Returns whether they agree.

    Args:
      run: a run, a checkpoint of one, or a Hugging Face checkpoint; "": our twin of what `against` names.
      against: likewise; a Hugging Face checkpoint is computed by its own class.
      framework: the twin that computes; "": the one that trained `run`, or PyTorch.
      precision: of parameters and computation; "": float64, and float32 beside a class of transformers.

    Raises:
      UserError: a folder that is none of these, or models of different shapes.
    """
    pin_threads()
    right = open_source("against", against)
    left = open_source("run", run) if run else right
    check_shapes(left, right)
    framework = framework or left.framework or right.framework or "torch"
    precision = precision or ("float64" if left.framework and right.framework else "float32")
    models = _model(left, framework, precision, ours=not run), _model(right, framework, precision)
    tokens = batch(left, right)
    tolerance = _tolerance(left, right, precision)
    report = Report(*models, f"{framework}, {precision}")
    divergence = report.follow(passes(*models, tokens, tolerance))
    if divergence:
        report.conclude(divergence, _rungs(models, tokens, precision, tolerance))
    return divergence is None


def _tolerance(left: Source, right: Source, precision: str) -> float:
    """Checkpoints of one twin are run by the same code: whatever differs is no rounding."""
    if not (left.framework and right.framework):
        return HUGGING_FACE_TOLERANCE
    return 0.0 if left.framework == right.framework else TOLERANCES[precision]


def _model(source: Source, framework: str, precision: str, ours: bool = False) -> Traceable:
    if source.framework or ours:
        return twin_of(source, framework, precision, f"{framework} twin of {source.name}" if ours else source.name)
    from parity.bisect.huggingface import HuggingFaceModel

    return HuggingFaceModel(source, precision)


def _rungs(models: tuple[Traceable, Traceable], tokens: np.ndarray, precision: str, tolerance: float) -> list[Result]:
    """Returns rungs 1 and 2 of the ladder, measured on two traces."""
    a, b = (model.trace(tokens) for model in models)
    own, other = parameter_gradients(a), parameter_gradients(b)
    floor = GRADIENT_FLOOR * float(np.linalg.norm([np.linalg.norm(gradient) for gradient in other.values()]))
    gradients = [relative(own[name], gradient, floor) for name, gradient in other.items() if name in own]
    errors = {1: of_order_one(_logits(a), _logits(b)), 2: max(gradients, default=0.0)}
    strict = all(model.complete for model in models)
    budgets = BUDGETS[precision] if strict else dict.fromkeys(errors, tolerance)
    return [Result("", precision, rung, errors[rung], budgets[rung], "", 0.0) for rung in errors if rung in budgets]


def _logits(trace: list[Event]) -> np.ndarray:
    return next(event.value for event in trace if event.key == ("forward", LOGITS, "output", 0))
