"""Computes traces and updates of both sides of a pair, and keeps those of the Flax twin."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from torch import nn

from parity.bisect.events import Event
from parity.bisect.trace_flax import FlaxTracer
from parity.bisect.trace_torch import TorchTracer, array
from parity.pair import PERTURBATION, Pair
from parity.state_transfer import State, perturbed, snapshot
from slm_core import protocols
from slm_core.model.dropout import site_keys
from slm_core.training.schedules import learning_rates
from slm_flax.numerics import DTYPES
from slm_flax.trainer import clip_factor

STEP, RATE = 3, 0.1  # of the one update: the optimizer's perturbed state is three updates old
STEPS = 12
"""Updates from the initial state, a whole schedule: past the warm-up of the small models."""

SMALL_SCALE = 64.0
"""A loss scale that overflows in none of the small models."""

NOISE = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-2}
"""{precision: share of the norm of all gradients below which one is rounding}."""

Metrics = dict[str, float]


class Update(NamedTuple):
    """The results of one update.

    Args:
      metrics: as fetched.
      state: exported after it.
      gradients: added up over the micro-batches, times the loss scale.
      clipped: the gradients that the optimizer got; {} if they cannot be read.
    """

    metrics: Metrics
    state: State
    gradients: dict[str, np.ndarray]
    clipped: dict[str, np.ndarray]


class Twins:
    """The engines of a pair, and the traces and updates computed with them. Made by `twins_of`.

    Methods leave the engines in any state: each sets the one that it needs.
    """

    def __init__(self, pair: Pair):
        self.torch, self.flax = pair.torch, pair.flax
        self.trace_torch, self.trace_flax = TorchTracer(pair.torch), FlaxTracer(pair.flax)
        self.config, self.precision, self.tokens = pair.config, pair.precision, pair.tokens
        engine = pair.flax  # a reference to the pair itself would keep it alive
        self._gradients = jax.jit(lambda remat, *given: engine._gradients(*given), static_argnums=0)
        self.batches = [pair.batch(step) for step in range(STEPS)]
        self.initial = pair.initial.get("flax") or snapshot(pair.flax)
        self.rates = learning_rates(self.config.optim, STEPS)
        self.grown = _grown(pair)
        self.perturbed = perturbed(self.initial, PERTURBATION) | self.grown

    def split(self, tokens: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Returns the micro-batches of a batch, each with its first row."""
        micro = self.config.train.micro_batch_size or len(tokens)
        return [(first, tokens[first : first + micro]) for first in range(0, len(tokens), micro)]

    @functools.cached_property
    def forward(self) -> list[Event]:
        """The Flax trace of `tokens`, with perturbed weights and without dropout."""
        self.flax.import_state(self.perturbed)
        return self.trace_flax(self.tokens)

    @functools.cached_property
    def training(self) -> list[list[Event]]:
        """The Flax trace of each micro-batch, with perturbed weights and the dropout of an update."""
        self.flax.import_state(self.perturbed)
        return [self.trace_flax(piece, STEP, first) for first, piece in self.split(self.tokens)]

    @functools.cached_property
    def noise(self) -> set[str]:
        """Parameters whose gradient is zero but for rounding, which an optimizer may enlarge to any size."""
        norms = {name: np.linalg.norm(gradient) for name, gradient in parameter_gradients(self.training[0]).items()}
        least = NOISE[self.precision] * np.linalg.norm(list(norms.values()))
        return {name for name, norm in norms.items() if norm < least}

    @functools.cached_property
    def update(self) -> Update:
        """The Flax twin's update of the perturbed state."""
        return self.update_flax(self.perturbed, self.tokens, RATE, STEP)

    def gradients_flax(self, piece: np.ndarray, step: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns the sum of the token losses of an update's first micro-batch, and the gradients of its loss, as the
        Flax twin trains.
        """
        one = DTYPES[self.config.precision.params].type(1)
        sites = site_keys(self.config.seed, step, self.config.model.n_layers)
        return self._added(piece[None], sites, np.float32(1), one)

    def _added(self, *given: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Calls the Flax engine's `_gradients`: with its stacks of layers, or with single layers if its model does
        not rematerialise.
        """
        engine, remat = self.flax, self.flax.model.remat
        values = engine.parameters() if remat == "none" else engine.state["params"]
        total, gradients = jax.device_get(self._gradients(remat, values, *given))
        single = gradients if remat == "none" else engine.stack.unstacked(gradients)
        return np.asarray(total), {name: np.asarray(value) for name, value in single.items()}

    def update_flax(self, state: State, tokens: np.ndarray, lr: float, step: int) -> Update:
        """Returns the Flax twin's update of a state."""
        engine, original = self.flax, self.flax.update
        engine.import_state(state)
        gradients: dict[str, np.ndarray] = {}

        def update(state: Any, pieces: np.ndarray, lr: np.ndarray, sites: np.ndarray, count: np.ndarray) -> Any:
            gradients.update(self._added(pieces, sites, state["scaler"]["scale"], count)[1])
            return original(state, pieces, lr, sites, count)

        with patch.object(engine, "update", update):
            metrics = engine.fetch(engine.train_step(tokens, lr, step))
        factor = float(clip_factor(jnp.asarray(metrics["grad_norm"]), self.config.optim.clip_norm))
        clipped = {name: gradients[name] * (factor / metrics["loss_scale"]) for name in engine.groups}
        return Update(metrics, snapshot(engine), gradients, clipped)

    def update_torch(self, state: State, tokens: np.ndarray, lr: float, step: int) -> Update:
        """Returns the PyTorch twin's update of a state."""
        engine = self.torch
        engine.import_state(state)
        gradients: dict[str, np.ndarray] = {}
        clipped: dict[str, np.ndarray] = {}
        with ExitStack() as stack:
            for owner, name, kept, params in (
                (engine, "_update", gradients, engine.params),
                (engine.optimizer, "step", clipped, engine.trained),
            ):
                stack.enter_context(patch.object(owner, name, _keeping(getattr(owner, name), kept, params)))
            metrics = engine.fetch(engine.train_step(tokens, lr, step))
        return Update(metrics, snapshot(engine), gradients, clipped)

    @functools.cached_property
    def evaluated(self) -> list[Event]:
        """As `forward`, with the weights that are evaluated and decoded with."""
        if not self.flax.averages:
            return self.forward
        self.flax.import_state(self.perturbed)
        return self.trace_flax(self.tokens, values=self.flax.evaluated())

    @functools.cached_property
    def decoded(self) -> list[np.ndarray]:
        """The logits of the Flax twin's cache after each piece of the last row of `tokens`."""
        self.flax.import_state(self.perturbed)
        decoder = self.flax.decoder()
        pieces = pieces_of(self.tokens[-1, :-1].tolist())
        return [decoder.step(piece[0]) if start else decoder.prefill(piece) for start, piece in pieces]

    @functools.cached_property
    def flax_updates(self) -> list[tuple[Metrics, State]]:
        """The Flax twin's metrics of each of the first updates, and the state after it."""
        return list(self.train(self.flax, self.initial))

    def train(self, engine: protocols.Engine, state: State) -> Iterator[tuple[Metrics, State]]:
        """Yields the metrics of each of the first updates, and the state after it."""
        engine.import_state(state)
        for step, rate in enumerate(self.rates):
            metrics = engine.fetch(engine.train_step(self.batches[step], rate, step))
            yield metrics, snapshot(engine)


_TWINS: WeakKeyDictionary[Pair, Twins] = WeakKeyDictionary()  # no entry refers to its pair: both go together


def twins_of(pair: Pair) -> Twins:
    """Returns the two sides of a pair: the same object each time, so that the Flax side is computed once."""
    if pair not in _TWINS:
        _TWINS[pair] = Twins(pair)
    return _TWINS[pair]


def _grown(pair: Pair) -> State:
    """Returns the state of a loss scale that one more finite update lets grow; {} if it stays 1."""
    if not pair.torch.scaler.active:
        return {}
    wait = pair.config.precision.loss_scale_growth_interval - 1
    return {"scaler/scale": np.array(SMALL_SCALE, np.float32), "scaler/good_steps": np.array(wait, np.int32)}


def pieces_of(row: list[int]) -> list[tuple[int, list[int]]]:
    """Returns the calls that read a text with a cache, each with its first position: the first half, then tokens."""
    prompt = max(1, len(row) // 2 - 1)
    return [(0, row[:prompt]), *((start, [row[start]]) for start in range(prompt, len(row)))]


def parameter_gradients(trace: list[Event]) -> dict[str, np.ndarray]:
    """Returns {name: gradient} of a trace."""
    gradients = (event for event in trace if event.stage == "backward" and not event.side)
    return {f"{e.path}.{e.tensor.removeprefix('gradient of ')}".removeprefix("."): e.value for e in gradients}


def _keeping(function: Callable, kept: dict[str, np.ndarray], params: Mapping[str, nn.Parameter]) -> Callable:
    """Returns a function that first copies the gradients of parameters."""

    def call(*arguments: Any, **options: Any) -> Any:
        kept.update({name: array(p.grad).copy() for name, p in params.items() if p.grad is not None})
        return function(*arguments, **options)

    return call
