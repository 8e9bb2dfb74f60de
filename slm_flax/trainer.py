"""The Flax engine: model, loss, gradients, clipping, scaling and update on one device."""

import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from slm_core.config import Config
from slm_core.engine import IGNORE, check_state
from slm_core.errors import UserError
from slm_core.hashing import site_keys
from slm_core.params import balance_steps, treatments
from slm_core.precision import choose_compute
from slm_flax import checkpoint, params
from slm_flax.generate import Decoder
from slm_flax.layers.dropout import DropoutKey
from slm_flax.loss import Losses, loss_sums
from slm_flax.model import Transformer
from slm_flax.numerics import DTYPES, wide
from slm_flax.optim import OPTIMIZERS
from slm_flax.optim.balance import balance
from slm_flax.optim.clipping import clip_factor
from slm_flax.params import Params, bind
from slm_flax.scaler import LossScaler

State = dict[str, dict[str, Array]]
"""{"params": ..., "optim": ..., "scaler": ...}, each by canonical name."""


def build(config: Config, vocab_size: int) -> "Engine":
    """Returns the engine of a run. Raises UserError when the machine lacks what the config asks for."""
    return Engine(config, vocab_size)


class Engine:
    """See `slm_core.engine.Engine`."""

    framework = "flax"

    def __init__(self, config: Config, vocab_size: int):
        self.config = config
        self.device = _prepare_device(config)
        capability = (
            tuple(map(int, self.device.compute_capability.split("."))) if self.device.platform == "gpu" else None
        )
        self.compute, self.reason = choose_compute(config.precision, capability)
        dtype = DTYPES[config.precision.params]
        self.model = Transformer(config, vocab_size, DTYPES[self.compute])
        self.scaler = LossScaler(config.precision, active=self.compute == "float16")
        specs = {name: spec for name, (_, spec) in params.specs(self.model).items()}
        self.treated, self.balance_steps = treatments(specs, config), balance_steps(specs)
        self.optimizer = OPTIMIZERS[config.optim.kind](config.optim, self.treated)
        self.averaged: Params | None = None
        values = dict(sorted(params.initialise(self.model, config.seed, dtype).items()))
        self.state: State = {
            "params": values,
            "optim": self.optimizer.init(self._trained(values)),
            "scaler": self.scaler.init(),
        }
        self.update = jax.jit(self._update, donate_argnums=0)
        self.loss_sums = jax.jit(self._loss_sums)

    def facts(self) -> dict[str, str]:
        count = sum(p.size for p in self.state["params"].values())
        device = (
            self.device.device_kind
            if self.device.platform == "gpu"
            else f"CPU, {self.config.run.threads or os.cpu_count()} threads"
        )
        return {
            "framework": f"JAX {jax.__version__}",
            "device": device,
            "parameters": f"{count:,} in {self.config.precision.params}",
            "compute": f"{self.compute} ({self.reason})",
            "memory": f"{self.peak_memory_bytes() / 1e9:.2f} GB after building",
        }

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

    def eval_step(self, tokens: np.ndarray) -> tuple[float, int]:
        sums = self.loss_sums(self.evaluated(), tokens, None)
        return float(sums.tokens), int((tokens[:, 1:] != IGNORE).sum())

    def decoder(self) -> Decoder:
        return Decoder(self.model, self.evaluated())

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

    def peak_memory_bytes(self) -> int:
        if self.device.platform == "gpu":
            return self.device.memory_stats()["peak_bytes_in_use"]
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

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

    def _loss_sums(self, values: Params, tokens: Array, key: DropoutKey | None) -> Losses:
        model = bind(self.model, values)
        inputs = jnp.maximum(tokens[:, :-1], 0)  # IGNORE has no embedding: it reads as token 0
        hidden, penalty = model(inputs, key=key)
        return loss_sums(model, hidden, penalty, tokens[:, 1:], self.config.memory.loss_chunk)

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


def _prepare_device(config: Config) -> jax.Device:
    """Picks the device and applies the process-wide settings that the config names, before JAX starts its backend."""
    jax.config.update("jax_enable_x64", config.precision.params == "float64")
    # JAX's own default rounds float32 matrix products to TF32 on GPUs that have it; PyTorch's does not.
    jax.config.update("jax_default_matmul_precision", "highest")
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "lm-workbench" / "jax"))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if config.run.threads:
        os.environ["NPROC"] = str(config.run.threads)  # XLA sizes its CPU thread pool by it
    if config.run.device != "cpu" and config.memory.budget_gb:
        _limit_gpu_memory(config.memory.budget_gb * 1e9)
    if config.run.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    device = jax.devices()[0]
    if config.run.device == "cuda" and device.platform != "gpu":
        raise UserError("run.device=cuda, but JAX finds no NVIDIA GPU here: set run.device=auto or cpu")
    return device


def _limit_gpu_memory(budget: float) -> None:
    """Lets JAX take `budget` bytes of the first GPU, by the fraction that its backend reads from the environment."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        total = float(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
    except (OSError, subprocess.CalledProcessError, ValueError):
        return
    if budget < total:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{budget / total:.4f}")
