"""Bisects the twins of a case, or the models of two folders, for `scripts/bisect_models.py`."""

import numpy as np

from parity.bisect.divergence import TENSOR_TOLERANCES
from parity.bisect.events import LOGITS, Event
from parity.bisect.folders import Source, batch, check_shapes, open_source, twin_of
from parity.bisect.models import FlaxTwin, TorchTwin, Traceable, passes
from parity.bisect.pairs import stages
from parity.bisect.show import Report
from parity.bisect.twins import parameter_gradients
from parity.cases import Case
from parity.distances import of_order_one, relative
from parity.pair import Pair, pin_threads
from parity.suite import Result, checks_of, measure
from parity.tolerances import GRADIENT_FLOOR, TOLERANCES

HUGGING_FACE_TOLERANCE = 1e-4
"""The classes of transformers compute rotations, and most norms, in float32, whatever the model's dtype is."""


def bisect_case(case: Case, precision: str) -> bool:
    """Bisects the twins of a case and prints the report. Returns whether they agree."""
    pin_threads()
    pair = Pair(case, precision)
    left, right = TorchTwin(pair.torch), FlaxTwin(pair.flax)
    report = Report(left, right, f"{case.name}, {precision}")
    divergence = report.follow(stages(pair))
    if divergence:
        report.conclude(divergence, list(measure(pair, checks_of(case, precision))))
    return divergence is None


def bisect_folders(run: str, against: str, framework: str, precision: str) -> bool:
    """Bisects two models from folders and prints the report. Returns whether they agree.

    Args:
      run: a run, a checkpoint of one, or a Hugging Face checkpoint; "": our twin of what `against` names.
      against: likewise; a Hugging Face checkpoint is computed by its own class.
      framework: the twin that computes; "": the one that trained `run`, or PyTorch.
      precision: of parameters and computation; "": float64, and float32 beside a class of transformers.

    Raises:
      UserError: a folder is none of these, or the models have different shapes.
    """
    pin_threads()
    right = open_source("against", against)
    left = open_source("run", run) if run else right
    check_shapes(left, right)
    framework = framework or left.framework or right.framework or "torch"
    precision = precision or ("float64" if left.framework and right.framework else "float32")
    models = _model(left, framework, precision, as_twin=not run), _model(right, framework, precision)
    tokens = batch(left, right)
    tolerance = _tolerance(left, right, precision)
    report = Report(*models, f"{framework}, {precision}")
    divergence = report.follow(passes(*models, tokens, tolerance))
    if divergence:
        report.conclude(divergence, _checks(models, tokens, precision, tolerance))
    return divergence is None


def _tolerance(left: Source, right: Source, precision: str) -> float:
    """Returns the tolerance of a tensor. The same code runs both checkpoints of one twin: no difference is rounding."""
    if not (left.framework and right.framework):
        return HUGGING_FACE_TOLERANCE
    return 0.0 if left.framework == right.framework else TENSOR_TOLERANCES[precision]


def _model(source: Source, framework: str, precision: str, as_twin: bool = False) -> Traceable:
    if source.framework or as_twin:
        return twin_of(source, framework, precision, f"{framework} twin of {source.name}" if as_twin else source.name)
    from parity.bisect.huggingface import HuggingFaceModel

    return HuggingFaceModel(source, precision)


def _checks(models: tuple[Traceable, Traceable], tokens: np.ndarray, precision: str, tolerance: float) -> list[Result]:
    """Returns the results of the checks of logits and gradients, measured on two traces."""
    a, b = (model.trace(tokens) for model in models)
    left, right = parameter_gradients(a), parameter_gradients(b)
    floor = GRADIENT_FLOOR * float(np.linalg.norm([np.linalg.norm(gradient) for gradient in right.values()]))
    gradients = [relative(left[name], gradient, floor) for name, gradient in right.items() if name in left]
    errors = {"logits": of_order_one(_logits(a), _logits(b)), "gradients": max(gradients, default=0.0)}
    strict = all(model.complete for model in models)
    tolerances = TOLERANCES[precision] if strict else dict.fromkeys(errors, tolerance)
    return [
        Result("", precision, check, errors[check], tolerances[check], "", 0.0)
        for check in errors
        if check in tolerances
    ]


def _logits(trace: list[Event]) -> np.ndarray:
    return next(event.value for event in trace if event.key == ("forward", LOGITS, "output", 0))
