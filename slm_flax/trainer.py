"""The Flax engine: model, loss, gradients, clipping, scaling and update on one device."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from slm_core.config import Config, Precision
from slm_core.model.dropout import site_keys
from slm_core.model.parameter_groups import balance_steps, parameter_groups
from slm_core.model.weights import Weights, checked
from slm_core.protocols import Evaluation, targets_of_update
from slm_core.runs.states import describe_state, open_state_for, write_state
from slm_flax import params, stack
from slm_flax.details import activation_rms, norms
from slm_flax.evaluator import Evaluator
from slm_flax.generate import Decoder
from slm_flax.layers.dropout import DropoutKey
from slm_flax.loss import Losses, batch_losses
from slm_flax.numerics import DTYPES, wide
from slm_flax.optim import AVERAGED, make
from slm_flax.params import Params

State = dict[str, dict[str, Array]]
"""{"params": ..., "optim": ..., "scaler": ...}, each by canonical name."""

ScalerState = dict[str, Array]

COPIES = 4
"""Threads that copy the state to the host, at most: more do not make memory faster."""


def build(config: Config, vocab_size: int, weights: Weights | None = None) -> "Engine":
    """Builds the engine of a run; `Evaluator` describes the arguments and the errors."""
    return Engine(config, vocab_size, weights)


class Engine:
    """Trains the model of an evaluator; see `slm_core.protocols.Engine`."""

    framework = "flax"

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None):
        self.evaluator = evaluator = Evaluator(config, vocab_size, weights, trains=True)
        self.config, self.choices = evaluator.config, evaluator.choices
        self.compute, self.device = evaluator.compute, evaluator.device
        self.model, self.loss_sums = evaluator.model, evaluator.loss_sums
        specs = {name: spec for name, (_, spec) in params.specs(self.model).items()}
        self.groups, self.balance_steps = parameter_groups(specs, self.config), balance_steps(specs)
        self.moving = self.groups.keys() | self.balance_steps.keys()  # the rest is frozen
        self.optimizer = make(self.config.optim, self.groups)
        self.averages = AVERAGED.get(self.config.optim.kind)
        self.averaged: Params | None = None
        self.scaler = LossScaler(self.config.precision, active=self.compute == "float16")
        self.stack = self.model.stack
        # Taken out of the evaluator, as an update writes over them.
        values = self.stack.stacked(evaluator.params)
        moments = stack.init(self.stack, self.optimizer, self._trained(values))
        self.state: State = {"params": values, "optim": moments, "scaler": self.scaler.init()}
        self.update = jax.jit(self._update, donate_argnums=0)
        self.measure = jax.jit(self._measure)

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict[str, Any]:
        """Does one update, and returns its metrics without waiting for them; see `slm_core.protocols.Engine`."""
        count = targets_of_update(tokens)
        micro = min(self.config.train.micro_batch_size, len(tokens))
        sites = site_keys(self.config.seed, step, self.config.model.n_layers)
        dtype = DTYPES[self.config.precision.params]
        self.averaged = None
        pieces = tokens.reshape(-1, micro, tokens.shape[1])
        self.state, metrics = self.update(self.state, pieces, dtype.type(lr), sites, dtype.type(count))
        return metrics

    def _loss_sums(self, values: Params, tokens: Array, key: DropoutKey | None) -> Losses:
        return batch_losses(self.model, values, tokens, key, self.config.memory.loss_chunk)

    def _update(
        self, state: State, pieces: Array, lr: Array, sites: Array, count: Array
    ) -> tuple[State, dict[str, Array]]:
        """Does one update. `pieces` is [micro-batches, rows, seq_len + 1]; `count` is the number of their targets."""
        values, scale = state["params"], state["scaler"]["scale"]
        total, loads = self._gradients(values, pieces, sites, scale, count)
        grads = self._trained(loads)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in grads.values())) / scale
        finite = jnp.isfinite(norm)
        factor = clip_factor(norm, self.config.optim.clip_norm) / scale
        kept = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        updated, moments = stack.update(
            self.stack, self.optimizer, grads, state["optim"], self._trained(values), lr, lambda g: g * factor, finite
        )
        steps = {name: step for name, step in self.balance_steps.items() if name in values}
        updated |= {name: kept(value, values[name]) for name, value in balance(values, loads, steps).items()}
        metrics = {"loss": total / count, "grad_norm": norm, "loss_scale": scale, "skipped": 1.0 - finite}
        return {
            "params": values | updated,
            "optim": moments,
            "scaler": self.scaler.update(state["scaler"], finite),
        }, metrics

    def _gradients(
        self, values: Params, pieces: Array, sites: Array, scale: Array, count: Array
    ) -> tuple[Array, Params]:
        """Computes the sum of the token losses, and the gradients of the scaled loss per token.

        Parameters that no update moves have no gradient. Micro-batches add to one copy of the gradients of a stack, in
        place. The other gradients are added up as they come.
        """
        moving = {name: value for name, value in values.items() if name in self.moving}
        stacked, single = self.stack.split(moving)

        def scaled_loss(stacked: Params, single: Params, piece: Array, index: Array) -> tuple[Array, Array]:
            first_row = (index * piece.shape[0]).astype(jnp.uint32)
            sums = self._loss_sums(values | stacked | single, piece, DropoutKey(sites, first_row))
            return sums.objective * (scale / count).astype(sums.objective.dtype), sums.tokens

        added = {name: jax.new_ref(jnp.zeros_like(value)) for name, value in stacked.items()}

        def piece_gradients(piece: Array, index: Array) -> tuple[Array, Params]:
            """Returns the sum of the token losses, and the gradients of what is not in a stack; adds the others."""
            loss = lambda stacked, single: scaled_loss(stacked, single, piece, index)  # noqa: E731
            objective, backward, total = jax.vjp(loss, stacked, single, has_aux=True)
            # pyrefly: ignore[missing-attribute]  (jax types the backward pass as a plain function)
            backward = backward.with_refs(added, dict.fromkeys(single, jax.ad.GradValue()))
            return total, backward(jnp.ones_like(objective))[1]

        index = jnp.arange(len(pieces))
        if len(pieces) == 1:
            total, grads = piece_gradients(pieces[0], index[0])
        else:
            add = lambda sums, piece: (jax.tree.map(jnp.add, sums, piece_gradients(*piece)), None)  # noqa: E731
            sums = (jnp.zeros((), wide(DTYPES[self.compute])), jax.tree.map(jnp.zeros_like, single))
            (total, grads), _ = jax.lax.scan(add, sums, (pieces, index))
        return total, grads | {name: jax.freeze(gradient) for name, gradient in added.items()}

    def _trained(self, values: Params) -> Params:
        """Returns those of the parameters, or of their gradients, that the optimizer trains."""
        return {name: value for name, value in values.items() if name in self.groups}

    def details(self, tokens: np.ndarray, step: int) -> dict[str, float]:
        """Measures weights, gradients and activations before an update; see `slm_core.protocols.Engine`."""
        count = targets_of_update(tokens)
        micro = min(self.config.train.micro_batch_size, len(tokens))
        sites = site_keys(self.config.seed, step, self.config.model.n_layers)
        dtype = DTYPES[self.config.precision.params]
        pieces = tokens.reshape(-1, micro, tokens.shape[1])
        scale = self.state["scaler"]["scale"]
        return self.fetch(self.measure(self.state["params"], pieces, sites, scale, dtype.type(count)))

    def _measure(self, values: Params, pieces: Array, sites: Array, scale: Array, count: Array) -> dict[str, Array]:
        """Computes the details of an update; see `_update`."""
        gradients = self._trained(self._gradients(values, pieces, sites, scale, count)[1])
        scaled = norms("gradient_norm", self.stack.unstacked(gradients))
        values = self.stack.unstacked(values)
        return (
            norms("weight_norm", self._trained(values))
            | {name: norm / scale for name, norm in scaled.items()}
            | activation_rms(self.model, values, pieces, sites)
        )

    def fetch(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Waits for the metrics of a `train_step`."""
        return {name: float(value) for name, value in jax.device_get(metrics).items()}

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        """Computes the losses of a batch, and how many targets the model predicts, without dropout."""
        return self.evaluator.measure(self._evaluated(), tokens)

    def decoder(self) -> Decoder:
        """Makes a decoder with the current parameters."""
        return Decoder(self.model, self.evaluated())

    def facts(self) -> dict[str, str]:
        """Returns {name: fact} for the start of a run: parameters, device, choices, memory."""
        return self.evaluator.facts()

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory of the device so far (of the process, on a CPU), in bytes."""
        return self.evaluator.peak_memory_bytes()

    def parameters(self) -> Params:
        """Returns the parameters by canonical name, one array per layer."""
        return self.stack.unstacked(self.state["params"])

    def evaluated(self) -> Params:
        """Returns the parameters to evaluate and decode with, one array per layer."""
        return self.stack.unstacked(self._evaluated())

    def _evaluated(self) -> Params:
        """Returns the parameters to evaluate with.

        These are the trained ones, or the optimizer's averages of them, which are kept until training goes on.
        """
        values = self.state["params"]
        if self.averages is None:
            return values
        if self.averaged is None:
            averages = self.averages(self.config.optim, self._trained(values), self.state["optim"])
            self.averaged = values | averages
        return self.averaged

    def non_finite_parameter(self) -> str:
        """Returns the name of the first trained parameter with a value that is not finite; "" if there is none."""
        stacks, others = self.stack.split(self._trained(self.state["params"]))
        finite = self.stack.unstacked(jax.device_get(are_finite(stacks, others)))
        return next((name for name, each in finite.items() if not each), "")

    def save(self, folder: Path) -> None:
        """Writes parameters, optimizer and loss scaler into an existing folder."""
        write_state(folder, self.state_entries(), describe_state(self.config, self.framework))

    def restore(self, folder: Path) -> None:
        """Reads what `save` of either twin wrote."""
        self.import_state(open_state_for(folder, self.config))

    def export_state(self, into: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Returns everything by canonical name: "params/NAME", "optim/m/NAME", "scaler/scale" and so on."""
        with ThreadPoolExecutor(COPIES) as pool:  # training waits for it
            return dict(self._entries(pool.map, into or {}))

    def state_entries(self) -> Iterator[tuple[str, np.ndarray]]:
        """Returns the entries of `export_state`, each copied when its turn comes."""
        return self._entries(map, {})

    def _entries(
        self, each: Callable[..., Iterable[dict[str, np.ndarray]]], into: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the entries of `export_state`; `each` applies the copying to all arrays, as `map` does."""

        def copied(part: str, name: str, array: Array) -> dict[str, np.ndarray]:
            views = self.stack.unstacked({f"{part}/{name}": np.asarray(array)})
            if not params.on_cpu(array):
                return views
            copies = {name: into[name] if name in into else np.empty_like(view) for name, view in views.items()}
            for name, view in views.items():
                np.copyto(copies[name], view)
            return copies

        arrays = [(part, name, array) for part, entries in self.state.items() for name, array in entries.items()]
        for copies in each(copied, *zip(*arrays, strict=True)):
            yield from copies.items()

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes the state that `export_state` of either twin returned."""
        shapes = {
            f"{part}/{member}": old.shape[1:] if self.stack.is_stacked(name) else old.shape
            for part, entries in self.state.items()
            for name, old in entries.items()
            for member in self.stack.members(name)
        }
        arrays = checked(state, shapes)
        self.averaged = None
        for entries in self.state.values():  # one after the other: there is no room for two states
            for name, old in entries.items():
                new = [next(arrays)[1] for _ in self.stack.members(name)]
                entries[name] = jnp.array(new[0] if len(new) == 1 else np.stack(new), old.dtype)


@jax.jit
def are_finite(stacks: Params, others: Params) -> Params:
    """Tells which arrays have finite values alone: a boolean, or one per layer of a stack."""
    # The largest magnitude tells it in one pass, and takes no memory. A NaN is the largest of all.
    finite = lambda value, axes: jnp.isfinite(jnp.abs(value).max(axes))  # noqa: E731
    layers = {name: finite(value, tuple(range(1, value.ndim))) for name, value in stacks.items()}
    return layers | {name: finite(value, None) for name, value in others.items()}


def clip_factor(norm: Array, limit: float) -> Array:
    """Computes the factor that brings gradients of global norm `norm` down to at most `limit` (0: no limit).

    Paper: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063.
    """
    return jnp.where(norm > limit, limit / norm, 1) if limit else jnp.ones_like(norm)


def balance(params: Params, grads: Params, steps: Mapping[str, float]) -> Params:
    """Moves a mixture's routing biases, which no loss trains: b <- b - step sign(load).

    An expert with a load above the mean is then chosen less (Wang et al. 2024, https://arxiv.org/abs/2408.15664). Such
    a parameter has the role "balance". Its gradient is the load minus the mean load, over the whole batch.
    """
    return {name: params[name] - step * jnp.sign(grads[name]) for name, step in steps.items()}


class LossScaler:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

    The loss is multiplied by `scale` before the backward pass, and gradients are divided by it after. A non-finite
    gradient skips the update and multiplies the scale by `backoff`. `interval` finite updates in a row double it, up to
    `limit`. Without float16 the scale stays 1, and a non-finite update is skipped, too.

    The scale is a float32 number, as in a checkpoint.
    """

    def __init__(self, precision: Precision, active: bool):
        self.active = active
        self.first = precision.loss_scale_init if active else 1.0
        self.interval = precision.loss_scale_growth_interval
        self.backoff = precision.loss_scale_backoff
        self.limit = precision.loss_scale_max

    def init(self) -> ScalerState:
        """Returns {"scale", "good_steps"}."""
        return {"scale": jnp.asarray(self.first, jnp.float32), "good_steps": jnp.zeros((), jnp.int32)}

    def update(self, state: ScalerState, finite: Array) -> ScalerState:
        """Returns the state after an update that was finite, or was not and was skipped."""
        if not self.active:
            return state
        scale, good_steps = state["scale"], state["good_steps"] + 1
        grows = good_steps >= self.interval
        grown = jnp.where(grows, jnp.minimum(scale * 2, self.limit), scale)
        return {
            "scale": jnp.where(finite, grown, jnp.maximum(scale * self.backoff, 1.0)),
            "good_steps": jnp.where(finite & ~grows, good_steps, 0),
        }
