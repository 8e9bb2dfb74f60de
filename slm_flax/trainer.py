"""The Flax engine: model, loss, gradients, clipping, scaling and update on one device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from slm_core.config import Config
from slm_core.engine import IGNORE, check_state
from slm_core.hashing import site_keys
from slm_core.params import balance_steps, treatments
from slm_flax import checkpoint, params
from slm_flax.evaluator import Evaluator, State
from slm_flax.layers.dropout import DropoutKey
from slm_flax.numerics import DTYPES, wide
from slm_flax.optim import OPTIMIZERS
from slm_flax.optim.balance import balance
from slm_flax.optim.clipping import clip_factor
from slm_flax.params import Params
from slm_flax.scaler import LossScaler


def build(config: Config, vocab_size: int) -> "Engine":
    """Returns the engine of a run. Raises UserError when the machine lacks what the config asks for."""
    return Engine(config, vocab_size)


class Engine(Evaluator):
    """See `slm_core.engine.Engine`."""

    def __init__(self, config: Config, vocab_size: int):
        super().__init__(config, vocab_size)
        specs = {name: spec for name, (_, spec) in params.specs(self.model).items()}
        self.treated, self.balance_steps = treatments(specs, config), balance_steps(specs)
        self.optimizer = OPTIMIZERS[config.optim.kind](config.optim, self.treated)
        self.averaged: Params | None = None
        self.scaler = LossScaler(config.precision, active=self.compute == "float16")
        self.state["optim"] = self.optimizer.init(self._trained(self.state["params"]))
        self.state["scaler"] = self.scaler.init()
        self.update = jax.jit(self._update, donate_argnums=0)

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict[str, Any]:
        count = int((tokens[:, 1:] != IGNORE).sum())
        micro = self.config.train.micro_batch_size or len(tokens)
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
        self.import_state(checkpoint.restore(folder))

    def export_state(self) -> dict[str, np.ndarray]:
        arrays = {f"{part}/{name}": array for part, entries in self.state.items() for name, array in entries.items()}
        return {name: np.array(array) for name, array in arrays.items()}

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        check_state(
            state,
            {f"{part}/{name}": own.shape for part, entries in self.state.items() for name, own in entries.items()},
        )
        self.state = {
            part: {name: jnp.asarray(state[f"{part}/{name}"], own.dtype) for name, own in entries.items()}
            for part, entries in self.state.items()
        }
        self.averaged = None

    def _trained(self, values: Params) -> Params:
        """Returns those of the parameters, or of their gradients, that the optimizer trains."""
        return {name: value for name, value in values.items() if name in self.treated}

    def evaluated(self) -> Params:
        """Returns the parameters to evaluate and decode with: the trained ones, or the optimizer's averages of them,
        which are kept until training goes on.
        """
        values = self.state["params"]
        if not self.optimizer.averages:
            return values
        if self.averaged is None:
            self.averaged = values | self.optimizer.evaluated(self._trained(values), self.state["optim"])
        return self.averaged

    def _update(
        self, state: State, pieces: Array, lr: Array, sites: Array, count: Array
    ) -> tuple[State, dict[str, Array]]:
        """One update. `pieces` is [micro-batches, rows, seq_len + 1]; `count` is how many targets they hold."""
        values, scale = state["params"], state["scaler"]["scale"]

        def scaled_loss(values: Params, piece: Array, index: Array) -> tuple[Array, Array]:
            first_row = (index * piece.shape[0]).astype(jnp.uint32)
            sums = self._loss_sums(values, piece, DropoutKey(sites, first_row))
            return sums.objective * (scale / count).astype(sums.objective.dtype), sums.tokens

        def add_piece(sums: tuple[Array, Params], piece: tuple[Array, Array]) -> tuple[tuple[Array, Params], None]:
            (_, total), grads = jax.value_and_grad(scaled_loss, has_aux=True)(values, *piece)
            return (sums[0] + total, jax.tree.map(jnp.add, sums[1], grads)), None

        index = jnp.arange(len(pieces))
        if len(pieces) == 1:
            (_, total), grads = jax.value_and_grad(scaled_loss, has_aux=True)(values, pieces[0], index[0])
        else:
            zero = jnp.zeros((), wide(DTYPES[self.compute]))
            sums = (zero, jax.tree.map(jnp.zeros_like, values))
            (total, grads), _ = jax.lax.scan(add_piece, sums, (pieces, index))

        loads, grads = grads, self._trained(grads)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in grads.values())) / scale
        finite = jnp.isfinite(norm)
        factor = clip_factor(norm, self.config.optim.clip_norm) / scale
        grads = {name: g * factor for name, g in grads.items()}
        updated, moments = self.optimizer.update(grads, state["optim"], self._trained(values), lr)
        updated |= balance(values, loads, self.balance_steps)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)  # noqa: E731
        metrics = {"loss": total / count, "grad_norm": norm, "loss_scale": scale, "skipped": 1.0 - finite}
        return {
            "params": keep(updated, values),
            "optim": keep(moments, state["optim"]),
            "scaler": self.scaler.update(state["scaler"], finite),
        }, metrics
