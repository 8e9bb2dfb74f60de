"""Compares two models that can be traced, and says how their modules differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from flax import nnx
from torch import nn

import slm_flax.evaluator
import slm_flax.trainer
import slm_torch.evaluator
import slm_torch.trainer
from parity.bisect.divergence import TENSOR_TOLERANCES, Agreement, Divergence, trace_comparisons, walk
from parity.bisect.events import LOGITS, MODEL, Event
from parity.bisect.sources import code_of
from parity.bisect.trace_flax import FlaxTracer
from parity.bisect.trace_torch import TorchTracer, array
from parity.distances import relative
from slm_flax.params import canonical

MODEL_NAMES = ("model", LOGITS)
Settings = Mapping[str, Any]
"""{name: value that a module computes with}: parameters and tables as arrays, options as they are."""


class Traceable(Protocol):
    """A model that can list its tensors."""

    name: str
    complete: bool
    """Whether it lists every tensor of ours. A tensor that one side lacks then counts as different."""

    def trace(self, tokens: np.ndarray, /) -> list[Event]:
        """Returns the events of the loss of a batch, int32 [rows, length + 1], and of its gradient."""

    def settings(self, module: str) -> Settings:
        """Returns the settings of a module by the names of its attributes; {} if there is no such module."""

    def code(self, module: str) -> str:
        """Returns the name, file and line of a module's code; "" if there is no such module."""


class TorchTwin:
    """The PyTorch twin with its weights."""

    complete = True

    def __init__(self, evaluator: slm_torch.evaluator.Evaluator | slm_torch.trainer.Engine, name: str = "PyTorch"):
        self.name, self.evaluator = name, evaluator
        self._tracer = TorchTracer(evaluator)

    def trace(self, tokens: np.ndarray) -> list[Event]:
        return self._tracer(tokens)

    def settings(self, module: str) -> Settings:
        part = self._part(module)
        if not isinstance(part, nn.Module):
            return _plain(vars(part)) if part else {}
        tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        return {name: array(tensor) for name, tensor in tensors} | _plain(vars(part))

    def code(self, module: str) -> str:
        return code_of(module, "torch", self._part(module))

    def _part(self, module: str) -> Any:
        """Returns the module, or the optimizer, of this name; None if there is none."""
        if module == "optimizer":
            return getattr(self.evaluator, "optimizer", None)
        return dict(self.evaluator.model.named_modules()).get(MODEL if module in MODEL_NAMES else module)


class FlaxTwin:
    """The Flax twin with its weights."""

    complete = True

    def __init__(self, evaluator: slm_flax.evaluator.Evaluator | slm_flax.trainer.Engine, name: str = "Flax"):
        self.name, self.evaluator = name, evaluator
        self._tracer = FlaxTracer(evaluator)

    def trace(self, tokens: np.ndarray) -> list[Event]:
        return self._tracer(tokens)

    def settings(self, module: str) -> Settings:
        part = self._part(module)
        settings = dict(_plain(vars(part))) if part else {}
        prefix = "" if module in MODEL_NAMES else f"{module}."
        values = self.evaluator.parameters()
        for name, value in vars(part).items() if isinstance(part, nnx.Module) else ():
            if isinstance(value, nnx.Param):
                settings[name] = np.asarray(values[prefix + name])
            elif hasattr(value, "dtype") or isinstance(value, nnx.Variable):
                settings[name] = np.asarray(value)
        return settings

    def code(self, module: str) -> str:
        return code_of(module, "flax", self._part(module))

    def _part(self, module: str) -> Any:
        """Returns the module, or the optimizer, of this name; None if there is none."""
        if module == "optimizer":
            return getattr(self.evaluator, "optimizer", None)
        modules = {canonical(path): part for path, part in nnx.iter_modules(self.evaluator.model)}
        return modules.get(MODEL if module in MODEL_NAMES else module)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the public attributes that are numbers, words, or few of these."""
    return {name: value for name, value in attributes.items() if not name.startswith("_") and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, tuple | list):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str)


def differing(left: Settings, right: Settings) -> str:
    """Says how two modules differ, as in "weight differs by 3e-02, eps is 1e-06 against 1e-05"."""
    texts = []
    for name in (name for name in left if name in right):
        a, b = left[name], right[name]
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            error = relative(a, b) if np.shape(a) == np.shape(b) else np.inf
            if error:
                texts.append(f"{name} differs by {error:.0e}")
        elif isinstance(a, dict) and isinstance(b, dict):
            texts += [f"{name} {text}" for text in [differing(a, b)] if text]
        elif type(a) is type(b) and a != b:  # the frameworks spell some options in other types
            texts.append(f"{name} is {a!r} against {b!r}")
    return ", ".join(texts)


def detailed(agreement: Agreement, left: Traceable, right: Traceable) -> Agreement:
    """Returns an agreement whose divergence says which parameters and settings of the module differ."""
    divergence = agreement.divergence
    if divergence is None:
        return agreement
    told = differing(left.settings(divergence.module), right.settings(divergence.module))
    texts = ", ".join(text for text in (divergence.detail, told) if text)
    return replace(agreement, divergence=replace(divergence, detail=texts))


def shared(left: Sequence[Event], right: Sequence[Event], order: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Returns the events of two traces that have the same tensor, in the order and in the shapes of one."""
    a, b = ({event.key: event.value for event in events} for events in (left, right))
    events = [event for event in order if event.key in a and event.key in b and a[event.key].size == b[event.key].size]
    left, right = ([replace(e, value=_fitted(side[e.key], e.value.shape)) for e in events] for side in (a, b))
    return left, right


def _fitted(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a value in another shape; heads may stand before positions or behind them."""
    turned = value.ndim == len(shape) == 4 and value.shape != shape
    return (value.swapaxes(1, 2) if turned else value).reshape(shape)


def passes(
    left: Traceable, right: Traceable, tokens: np.ndarray, tolerance: float = TENSOR_TOLERANCES["float64"]
) -> Iterator[tuple[str, Agreement]]:
    """Yields the stages "forward" and "backward" and their agreement, up to the first divergence."""
    left_events, right_events = left.trace(tokens), right.trace(tokens)
    if not (left.complete and right.complete):
        left_events, right_events = shared(
            left_events, right_events, order=left_events if left.complete else right_events
        )
    for stage in ("forward", "backward"):
        agreement = detailed(walk(stage, trace_comparisons(stage, left_events, right_events), tolerance), left, right)
        yield stage, agreement
        if agreement.divergence:
            return


def bisect_models(
    left: Traceable, right: Traceable, tokens: np.ndarray, tolerance: float = TENSOR_TOLERANCES["float64"]
) -> Divergence | None:
    """Returns the first tensor in which two models differ, forward, then backward; or None.

    Args:
      left: the model in doubt.
      right: the model that it should agree with; errors are relative to its tensors.
      tokens: int32 [rows, length + 1]; column t + 1 is the target of column t; IGNORE and unscored do not count.
      tolerance: relative L2 error of a tensor that is still rounding.
    """
    return next(
        (agreement.divergence for _, agreement in passes(left, right, tokens, tolerance) if agreement.divergence), None
    )
