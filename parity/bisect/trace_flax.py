"""Traces the Flax twin: wraps the calls of its modules while JAX traces one jitted function.

Values leave that function beside its result. The gradient at a tensor is that of a zero added to it, a tap.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import slm_flax.layers.moe
import slm_flax.loss
from parity.bisect.events import LOGITS, LOSS, Event, Recorder, finish
from slm_core.config.fields import with_values
from slm_core.model.dropout import site_keys
from slm_flax.evaluator import Evaluator
from slm_flax.layers.dropout import DropoutKey
from slm_flax.layers.moe import ExpertLinear
from slm_flax.model import Transformer
from slm_flax.params import Params, bind, canonical, moving
from slm_flax.trainer import Engine

Taps = Mapping[int, Array]
METHODS = {"__call__": "", "auxiliary_loss": "auxiliary_loss", "logits": LOGITS}
"""{method that is recorded: its name in the trace}."""


class FlaxTracer:
    """Traces the passes of an engine; each shape of a batch is compiled once, with dropout and without."""

    def __init__(self, engine: Evaluator | Engine):
        self.engine = engine
        self._programs: dict[tuple, tuple[Callable, list[Event], dict[int, np.ndarray]]] = {}

    def __call__(
        self, tokens: np.ndarray, step: int | None = None, first_row: int = 0, values: Params | None = None
    ) -> list[Event]:
        """Returns the trace of the loss of a batch and of its gradient.

        Args:
          tokens: int32 [rows, length + 1].
          step: the update whose dropout is drawn; None: no dropout.
          first_row: which row of the global batch the first one is.
          values: the parameters; None: the engine's.
        """
        values = self.engine.parameters() if values is None else values
        key = None
        if step is not None:
            sites = site_keys(self.engine.config.seed, step, self.engine.config.model.n_layers)
            key = (sites, np.uint32(first_row))
        shape = (tokens.shape, key is None)
        if shape not in self._programs:
            self._programs[shape] = self._compiled(values, tokens, key)
        program, events, taps = self._programs[shape]
        moving_values = moving(self.engine.model, values)
        (_, (values_of_taps, rows)), (gradients, parameters) = jax.device_get(
            program(taps, moving_values, values, tokens, key)
        )
        filled = iter(values_of_taps)
        events = [replace(e, value=np.asarray(next(filled))) if e.value is _TRACED else e for e in events]
        return finish(events, rows, gradients, parameters)

    def _compiled(
        self, values: Params, tokens: np.ndarray, key: Any
    ) -> tuple[Callable, list[Event], dict[int, np.ndarray]]:
        """Returns the jitted gradient of `_objective`, the events that it records, and its taps."""
        shapes = {}

        def shape_of(number: int, x: Array) -> Array:
            if jnp.issubdtype(x.dtype, jnp.floating):
                shapes[number] = np.zeros(x.shape, x.dtype)
            return x

        recorder = Recorder(is_tensor, shape_of)
        jax.eval_shape(partial(self._objective, recorder), values, tokens, key)
        kept = [replace(e, value=_TRACED if isinstance(e.value, Array) else e.value) for e in recorder.events]

        def run(taps: Taps, moving: Params, values: Params, tokens: Array, key: Any) -> tuple[Array, Any]:
            recorder = Recorder(is_tensor, lambda number, x: x + taps[number] if number in taps else x)
            objective = self._objective(recorder, values | moving, tokens, key)
            return objective, ([e.value for e in recorder.events if isinstance(e.value, Array)], recorder.rows)

        return jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True)), kept, shapes

    def _objective(self, recorder: Recorder, values: Params, tokens: Array, key: Any) -> Array:
        engine = self.engine
        unchunked = with_values(engine.config, {"memory.loss_chunk": 0, "memory.remat": "none"})
        key = None if key is None else DropoutKey(*key)
        with recorded(recorder, slm_flax.loss), patch.object(engine, "config", unchunked):
            loss_sums = partial(engine._loss_sums, values)
            return recorder.call(LOSS, "", loss_sums, (tokens, key), {}, False).objective


_TRACED = object()
"""Marks a value that the compiled program gives."""


@contextmanager
def recorded(recorder: Recorder, home: ModuleType) -> Iterator[None]:
    """Wraps the modules of the model that `home` binds, its auxiliary losses and its `logits`."""
    with ExitStack() as stack:
        paths: dict[int, str] = {}

        def bound(model: Transformer, values: Params) -> Transformer:
            model = bind(model, values)
            model.remat = "none"
            modules = [(canonical(path), module) for path, module in nnx.iter_modules(model)]
            paths.update({id(module): path for path, module in modules})
            methods = [
                (kind, name, method, getattr(kind, name))
                for kind in dict.fromkeys(type(module) for _, module in modules)
                for name, method in METHODS.items()
                if hasattr(kind, name)
            ]
            for kind, name, method, function in methods:
                stack.enter_context(patch.object(kind, name, _wrapper(recorder, paths, method, function)))
            return model

        stack.enter_context(patch.object(home, "bind", bound))
        stack.enter_context(_pair_rows(recorder))
        yield


def _wrapper(recorder: Recorder, paths: Mapping[int, str], method: str, function: Callable) -> Callable:
    def call(module: nnx.Module, *arguments: Any, **options: Any) -> Any:
        if method == LOGITS and isinstance(module, Transformer):
            return _logits(recorder, module, function, *arguments)
        bound, by_pair = partial(function, module), isinstance(module, ExpertLinear)
        return recorder.call(paths[id(module)], method, bound, arguments, options, by_pair)

    return call


def _logits(recorder: Recorder, model: Transformer, function: Callable, hidden: Array) -> Array:
    """Calls a model's logits. Tied embeddings are recorded as an input."""

    def call(hidden: Array, *tied: Array) -> Array:
        weight = model.embed.weight.get_value()
        model.embed.weight.set_value(tied[0] if tied else weight)
        logits = function(model, hidden)
        model.embed.weight.set_value(weight)
        return logits

    tied = (model.embed.weight.get_value(),) if model.head is None else ()
    return recorder.call(LOGITS, "", call, (hidden, *tied), {}, False)


@contextmanager
def _pair_rows(recorder: Recorder) -> Iterator[None]:
    """Lets the recorder know how a mixture sorts the rows of its experts."""
    sort = slm_flax.layers.moe.rows_by_expert

    def noted(*arguments: Any) -> Any:
        rows = sort(*arguments)
        recorder.pair_rows = rows.row
        return rows

    with patch.object(slm_flax.layers.moe, "rows_by_expert", noted):
        yield


def is_tensor(value: Any) -> bool:
    """Whether a value is recorded: floating numbers, and ids of tokens, which have two axes."""
    if not isinstance(value, Array):
        return False
    return jnp.issubdtype(value.dtype, jnp.floating) or (value.ndim > 1 and value.dtype != jnp.bool_)
