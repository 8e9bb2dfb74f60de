"""Traces a PyTorch model: wraps the calls of its modules for one pass."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import slm_torch.layers.moe
from parity.bisect.events import LOGITS, LOSS, Event, Recorder, finish
from slm_core.config.fields import with_values
from slm_core.model.dropout import site_keys
from slm_torch.evaluator import Evaluator
from slm_torch.layers.dropout import DropoutKey
from slm_torch.layers.moe import ExpertLinear
from slm_torch.model import Transformer
from slm_torch.trainer import Engine


class TorchTracer:
    """Traces the passes of an engine. The engine is as before when a pass is over."""

    def __init__(self, engine: Evaluator | Engine):
        self.engine = engine

    def __call__(self, tokens: np.ndarray, step: int | None = None, first_row: int = 0) -> list[Event]:
        """Returns the trace of the loss of a batch and of its gradient.

        Args:
          tokens: int32 [rows, length + 1].
          step: the update whose dropout is drawn; None: no dropout.
          first_row: which row of the global batch the first one is.
        """
        engine, taps = self.engine, Taps()
        recorder = Recorder(is_tensor, taps)
        key = None if step is None else self.key(step, first_row)
        unchunked = with_values(engine.config, {"memory.loss_chunk": 0, "memory.remat": "none"})
        with (
            recorded(recorder, engine.model),
            patch.object(engine, "config", unchunked),
            patch.object(engine.model, "remat", "none"),
            torch.enable_grad(),
        ):
            given = torch.from_numpy(tokens).to(engine.device, torch.int64), key
            sums = recorder.call(LOSS, "", engine.loss_sums, given, {}, False)
            parameters = taps.gradients_of(sums.objective, engine.params)
        return finished(recorder, taps, parameters)

    def key(self, step: int, first_row: int) -> DropoutKey:
        """Returns the dropout key of an update's micro-batch."""
        sites = site_keys(self.engine.config.seed, step, self.engine.config.model.n_layers).view(np.int32)
        return DropoutKey(torch.from_numpy(sites).to(self.engine.device), first_row)


@contextmanager
def recorded(recorder: Recorder, model: nn.Module) -> Iterator[None]:
    """Wraps every module of a model, its auxiliary losses and its `logits`, if it has them, until the context ends."""
    with ExitStack() as stack:

        def wrap(owner: Any, name: str, path: str, method: str, by_pair: bool = False) -> None:
            function = getattr(owner, name)
            wrapped = _wrapper(recorder, path, method, function, by_pair)
            stack.enter_context(patch.object(owner, name, wrapped))

        for path, module in model.named_modules():
            if type(module).forward is not nn.Module.forward and not isinstance(module, nn.ModuleList):
                wrap(module, "forward", path, "", isinstance(module, ExpertLinear))
            if hasattr(module, "auxiliary_loss"):
                wrap(module, "auxiliary_loss", path, "auxiliary_loss")
        if isinstance(model, Transformer):
            stack.enter_context(patch.object(model, "logits", partial(_logits, recorder, model, model.logits)))
        stack.enter_context(_pair_rows(recorder))
        yield


def _wrapper(recorder: Recorder, path: str, method: str, function: Callable, by_pair: bool) -> Callable:
    return lambda *arguments, **options: recorder.call(path, method, function, arguments, options, by_pair)


def _logits(recorder: Recorder, model: Transformer, function: Callable, hidden: Tensor) -> Tensor:
    """Calls a model's logits. Tied embeddings are recorded as an input."""

    def call(hidden: Tensor, *tied: Tensor) -> Tensor:
        weights: dict[str, Any] = model.embed._parameters
        weight = model.embed.weight
        weights["weight"] = tied[0] if tied else weight
        try:
            return function(hidden)
        finally:
            weights["weight"] = weight

    tied = (model.embed.weight,) if model.head is None else ()
    return recorder.call(LOGITS, "", call, (hidden, *tied), {}, False)


@contextmanager
def _pair_rows(recorder: Recorder) -> Iterator[None]:
    """Lets the recorder know how a mixture sorts the rows of its experts."""
    sort = slm_torch.layers.moe.rows_by_expert

    def noted(*arguments: Any) -> Any:
        rows = sort(*arguments)
        recorder.pair_rows = rows.row
        return rows

    with patch.object(slm_torch.layers.moe, "rows_by_expert", noted):
        yield


def is_tensor(value: Any) -> bool:
    """Whether a value is recorded: floating numbers, and ids of tokens, which have two axes."""
    return isinstance(value, Tensor) and (value.is_floating_point() or (value.ndim > 1 and value.dtype != torch.bool))


class Taps:
    """Reads gradients at tensors, each by its number.

    A tap returns the same numbers as a node of its own in the graph, whose gradient is that of this one use.
    """

    def __init__(self) -> None:
        self.gradients: dict[int, Tensor] = {}
        self.constants: dict[int, Tensor] = {}

    def __call__(self, number: int, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.is_floating_point()):
            return x
        if not x.requires_grad:
            self.constants[number] = x.detach().requires_grad_()
            return self.constants[number]
        node = x.clone()  # what is recorded stays: Falcon's class adds attention into the MLP's output in place
        node.register_hook(lambda gradient: self.gradients.update({number: gradient}))
        return node

    def gradients_of(self, objective: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Runs the backward pass. Returns the gradients of parameters by name, and keeps those of the taps."""
        parameters = {name: p for name, p in parameters.items() if p.requires_grad}
        inputs: dict[str | int, Tensor] = {**parameters, **self.constants}
        gradients = torch.autograd.grad(objective, list(inputs.values()), allow_unused=True)
        named = {
            name: torch.zeros_like(x) if g is None else g
            for (name, x), g in zip(inputs.items(), gradients, strict=True)
        }
        self.gradients |= {number: named[number] for number in self.constants}
        return {name: array(named[name]) for name in parameters}


def finished(recorder: Recorder, taps: Taps, parameters: Mapping[str, np.ndarray]) -> list[Event]:
    """Returns the whole trace of a pass; without gradients of parameters its forward half."""
    events = [replace(e, value=None if e.value is None else array(e.value)) for e in recorder.events]
    gradients = {
        i: array(taps.gradients[i]) if i in taps.gradients else np.zeros_like(events[i].value)
        for i, e in enumerate(recorder.events)
        if parameters and isinstance(e.value, Tensor) and e.value.is_floating_point()
    }
    rows = {number: array(index) for number, index in recorder.rows.items()}
    return finish(events, rows, gradients, parameters)


def array(value: Tensor | int) -> np.ndarray:
    """Returns a tensor as an array; a half precision that NumPy lacks becomes float32."""
    if not isinstance(value, Tensor):
        return np.array(value)
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
