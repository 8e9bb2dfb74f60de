"""Records traces: the inputs and outputs of every module's calls, in execution order, then their gradients in reverse.

Both twins are recorded by one class, `Recorder`, which knows neither framework. A tracer wraps the calls of a model
with `Recorder.call`, and gives the function that reads a gradient at a tensor.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MODEL, LOGITS, LOSS = "", "logits", "loss"
"""Paths of the model itself, of its `logits`, and of the code that calls both."""


@dataclass(frozen=True)
class Event:
    """One tensor of a trace.

    Args:
      stage: "forward" or "backward".
      path: of the module, by attribute names; "" is the model.
      tensor: "input", "output", "gradient of output", ..., the second and further of several with a number behind.
      value: the tensor; None in an event that marks the beginning of a call.
      call: which of the module's calls, counted from 0.
      caller: path of the module whose code made the call.
    """

    stage: str
    path: str
    tensor: str
    value: Any
    call: int = 0
    caller: str = LOSS

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The key that the same tensor has in both traces."""
        return self.stage, self.path, self.tensor, self.call

    @property
    def side(self) -> str:
        """ "input" or "output"; "" of a parameter."""
        word = self.tensor.rpartition(" ")[2].partition(".")[0]
        return word if word in ("input", "output") else ""


class Recorder:
    """Lists the forward events of one pass, with the framework's own tensors.

    Args:
      is_tensor: whether a value is recorded: data that a module computes with, not an option.
      tap: takes a tensor and its number in the list, and returns the tensor that takes its place.
      root: path of the code that calls the model.
    """

    def __init__(self, is_tensor: Callable[[Any], bool], tap: Callable[[int, Any], Any], root: str = LOSS):
        self.events: list[Event] = []
        self.rows: dict[int, Any] = {}
        """{number of an event: the rows by which two traces compare its tensor}, see `by_pair`."""
        self.pair_rows: Any = None
        self._is_tensor, self._tap = is_tensor, tap
        self._callers, self._calls = [root], Counter()

    def call(self, path: str, method: str, function: Callable, arguments: Sequence, options: Mapping, by_pair: bool):
        """Calls a function of the module at `path`, and records its inputs and outputs.

        Args:
          method: "" for the module's call; else the method, which stands before "input" and "output".
          by_pair: whether the first axis is the rows of a mixture's experts, which each twin sorts in its own way.
        """
        call, caller = self._calls[path, method], self._callers[-1]
        self._calls[path, method] += 1
        prefix = f"{method} " if method else ""

        def see(name: str, value: Any) -> Any:
            whole = isinstance(value, int) and not isinstance(value, bool)  # a position
            if not (whole or self._is_tensor(value)):
                return value
            number = len(self.events)
            self.events.append(Event("forward", path, prefix + name, value, call, caller))
            if by_pair:
                self.rows[number] = self.pair_rows
            return value if whole else self._tap(number, value)

        arguments = [_visit(value, f"input.{i}" if i else "input", see) for i, value in enumerate(arguments)]
        options = {name: _visit(value, f"input.{name}", see) for name, value in options.items()}
        self.events.append(Event("begin", path, prefix, None, call, caller))
        self._callers.append(path)
        result = function(*arguments, **options)
        self._callers.pop()
        return _visit(result, "output", see)


def _visit(tree: Any, name: str, see: Callable[[str, Any], Any]) -> Any:
    """Returns a value with `see(name, leaf)` in the place of each leaf. Only tuples are entered."""
    fields = getattr(tree, "_fields", None)  # of a named tuple
    if isinstance(tree, tuple) and fields:
        return type(tree)(*(_visit(getattr(tree, field), f"{name}.{field}", see) for field in fields))
    if isinstance(tree, tuple):
        return tuple(_visit(value, f"{name}.{i}", see) for i, value in enumerate(tree))
    return see(name, tree)


def finish(
    events: Sequence[Event],
    rows: Mapping[int, np.ndarray],
    gradients: Mapping[int, np.ndarray],
    parameters: Mapping[str, np.ndarray],
) -> list[Event]:
    """Returns a whole trace.

    Args:
      events: recorded, with NumPy values.
      rows: {number of an event: how its rows are picked}.
      gradients: {number of an event: gradient of its tensor}; {} for the forward pass alone.
      parameters: {name: gradient}. That of a module's own parameter follows the gradients of all its outputs.
    """

    def picked(number: int, value: np.ndarray) -> np.ndarray:
        return value[rows[number]] if number in rows else value

    trace = [replace(e, value=np.asarray(picked(i, e.value))) for i, e in enumerate(events) if e.stage == "forward"]
    first_call: dict[str, int] = {}
    for i, event in enumerate(events):
        if event.stage == "begin":
            first_call.setdefault(event.path, i)
    owned: dict[str, list[str]] = {}
    for name in parameters:
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    for i, event in reversed(list(enumerate(events))):
        if event.stage == "begin" and first_call[event.path] == i:
            for name in reversed(owned.pop(event.path, [])):
                trace.append(_parameter(event, name, parameters[name]))
        elif i in gradients:
            value = picked(i, gradients[i])
            trace.append(replace(event, stage="backward", tensor=f"gradient of {event.tensor}", value=value))
    for path, names in owned.items():  # of modules that were never called
        trace += [_parameter(Event("begin", path, "", None), name, parameters[name]) for name in names]
    return trace


def _parameter(event: Event, name: str, gradient: np.ndarray) -> Event:
    return Event("backward", event.path, f"gradient of {name.rpartition('.')[2]}", gradient, 0, event.caller)
