"""The Flax engine: model, loss, gradients, clipping, scaling and update on one device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from slm_core.config import Config
from slm_core.model.dropout import site_keys
from slm_core.model.parameter_groups import balance_steps, parameter_groups
from slm_core.model.weights import Weights, checked
from slm_core.protocols import IGNORE
from slm_flax import checkpoint, params, stack
from slm_flax.evaluator import Evaluator, State
from slm_flax.layers.dropout import DropoutKey
from slm_flax.numerics import DTYPES, wide
from slm_flax.optim import AVERAGED, make
from slm_flax.optim.balance import balance
from slm_flax.optim.clipping import clip_factor
from slm_flax.params import Params
from slm_flax.scaler import LossScaler


def build(config: Config, vocab_size: int, weights: Weights | None = None) -> "Engine":
    """Returns the engine of a run; see `Evaluator` for `weights` and what it raises."""
    return Engine(config, vocab_size, weights)


class Engine(Evaluator):
    """See `slm_core.protocols.Engine`."""

    trains = True

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None):
        super().__init__(config, vocab_size, weights)
        specs = {name: spec for name, (_, spec) in params.specs(self.model).items()}
        self.groups, self.balance_steps = parameter_groups(specs, config), balance_steps(specs)
        self.moving = self.groups.keys() | self.balance_steps.keys()  # the rest is frozen
        self.optimizer = make(config.optim, self.groups)
        self.averages = AVERAGED.get(config.optim.kind)
        self.averaged: Params | None = None
        self.scaler = LossScaler(config.precision, active=self.compute == "float16")
        self.stack = self.model.stack
        self.state["params"] = self.stack.stacked(self.state["params"])
        self.state["optim"] = stack.init(self.stack, self.optimizer, self._trained(self.state["params"]))
        self.state["scaler"] = self.scaler.init()
        self.update = jax.jit(self._update, donate_argnums=0)

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict[str, Any]:
        count = int((tokens[:, 1:] != IGNORE).sum())
        micro = min(self.config.train.micro_batch_size, len(tokens))
        sites = site_keys(self.config.seed, step, self.config.model.n_layers)
        dtype = DTYPES[self.config.precision.params]
        self.averaged = None
        pieces = tokens.reshape(-1, micro, tokens.shape[1])
        self.state, metrics = self.update(self.state, pieces, dtype.type(lr), sites, dtype.type(count))
        return metrics

    def fetch(self, metrics: dict[str, Any]) -> dict[str, float]:
        return {name: float(value) for name, value in jax.device_get(metrics).items()}

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, self.export_state())

    def restore(self, folder: Path) -> None:
        self.import_state(checkpoint.open_state(folder))

    def export_state(self) -> dict[str, np.ndarray]:
        arrays = {part: {name: np.array(x) for name, x in entries.items()} for part, entries in self.state.items()}
        single = {part: self.stack.unstacked(entries) for part, entries in arrays.items()}
        return {f"{part}/{name}": array for part, entries in single.items() for name, array in entries.items()}

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        shapes = {
            f"{part}/{member}": own.shape[1:] if self.stack.is_stacked(name) else own.shape
            for part, entries in self.state.items()
            for name, own in entries.items()
            for member in self.stack.members(name)
        }
        arrays = checked(state, shapes)
        self.averaged = None
        for entries in self.state.values():  # one after the other: there is no room for two states
            for name, own in entries.items():
                found = [next(arrays)[1] for _ in self.stack.members(name)]
                entries[name] = jnp.array(found[0] if len(found) == 1 else np.stack(found), own.dtype)

    def _trained(self, values: Params) -> Params:
        """Returns those of the parameters, or of their gradients, that the optimizer trains."""
        return {name: value for name, value in values.items() if name in self.groups}

    def parameters(self) -> Params:
        return self.stack.unstacked(self.state["params"])

    def evaluated(self) -> Params:
        return self.stack.unstacked(self._evaluated())

    def _evaluated(self) -> Params:
        """Returns the parameters to evaluate with: the trained ones, or the optimizer's averages of them, which are
        kept until training goes on.
        """
        values = self.state["params"]
        if self.averages is None:
            return values
        if self.averaged is None:
            self.averaged = values | self.averages(self.config.optim, self._trained(values), self.state["optim"])
        return self.averaged

    def _update(
        self, state: State, pieces: Array, lr: Array, sites: Array, count: Array
    ) -> tuple[State, dict[str, Array]]:
        """One update. `pieces` is [micro-batches, rows, seq_len + 1]; `count` is how many targets they hold."""
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
        """Returns the sum of the token losses, and the gradients of the scaled loss a token, by what an update moves.

        Micro-batches add to one copy of the gradients of a stack, in place. The others are added up as they come.
        """
        moving = {name: value for name, value in values.items() if name in self.moving}
        stacked, single = self.stack.split(moving)

        def scaled_loss(stacked: Params, single: Params, piece: Array, index: Array) -> tuple[Array, Array]:
            first_row = (index * piece.shape[0]).astype(jnp.uint32)
            sums = self._loss_sums(values | stacked | single, piece, DropoutKey(sites, first_row))
            return sums.objective * (scale / count).astype(sums.objective.dtype), sums.tokens

        added = {name: jax.new_ref(jnp.zeros_like(value)) for name, value in stacked.items()}

        def piece_gradients(piece: Array, index: Array) -> tuple[Array, Params]:
            """Returns the sum of the token losses and the gradients of what is in no stack; adds the others."""
            loss = lambda stacked, single: scaled_loss(stacked, single, piece, index)  # noqa: E731
            objective, backward, total = jax.vjp(loss, stacked, single, has_aux=True)
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
