"""Both twins of one cell, in one process, and the batches that they see."""

import functools

import jax
import numpy as np
import torch

import slm_flax.trainer
import slm_torch.trainer
from parity.cells import PROOFS, Cell
from parity.port import perturbed, snapshot
from parity.probe import Probe, probe_flax, probe_torch
from slm_core.config.fields import with_values
from slm_core.protocols import IGNORE

PERTURBATION = 1  # seed of the perturbed weights


class Pair:
    """The twins of a cell in one precision. JAX's width is a setting of the process: one pair is alive at a time."""

    def __init__(self, cell: Cell, precision: str):
        self.cell, self.precision = cell, precision
        params = precision if precision in PROOFS else "float32"
        self.config = with_values(cell.config, {"precision.params": params, "precision.compute": precision})
        # Many cells compile the same programs: a small one is worth keeping, too.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_disable_most_optimizations", not cell.optimized)
        self.flax = slm_flax.trainer.build(self.config, cell.vocab_size)
        self.torch = slm_torch.trainer.build(self.config, cell.vocab_size)
        self.engines = {"torch": self.torch, "flax": self.flax}
        trains = any(rung > 2 for rung in cell.rungs)
        self.initial = {name: snapshot(engine) for name, engine in self.engines.items()} if trains else {}

    def start(self) -> None:
        """Takes both twins back to the state that the seed gave each of them."""
        for name, engine in self.engines.items():
            engine.import_state(self.initial[name])

    def perturb(self) -> None:
        """Gives both twins the same state, non-zero everywhere."""
        # From the seed's state each time: scales of matrices in few bits are multiplied.
        state = perturbed(self.initial.get("torch") or self.torch.export_state(), PERTURBATION)
        for engine in self.engines.values():
            engine.import_state(state)

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """A batch whose last targets are IGNORE: two of the first row, one of the last."""
        tokens = np.array(self.batch(0))
        tokens[0, -2:] = IGNORE
        tokens[-1, -1] = IGNORE
        return tokens

    @functools.cached_property
    def probes(self) -> tuple[Probe, Probe]:
        """What both twins make of `tokens`, with perturbed weights: torch, flax."""
        self.perturb()
        return probe_torch(self.torch, self.tokens), probe_flax(self.flax, self.tokens)

    def batch(self, step: int) -> np.ndarray:
        """Returns a batch that has something to learn: arithmetic progressions, an eighth of their tokens replaced."""
        cell, rng = self.cell, np.random.default_rng(step)
        shape = (cell.rows, cell.length + 1)
        first, stride = rng.integers(0, cell.vocab_size, (cell.rows, 1)), rng.integers(1, 4, (cell.rows, 1))
        tokens = (first + stride * np.arange(shape[1])) % cell.vocab_size
        noise = rng.integers(0, cell.vocab_size, shape)
        return np.where(rng.random(shape) < 0.125, noise, tokens).astype(np.int32)


def release() -> None:
    """Drops compiled programs and what they hold, for the next pair."""
    import gc

    gc.collect()
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


def pin_threads(count: int = 1) -> None:
    """Sets PyTorch's threads: more would change the order of sums with the machine."""
    torch.set_num_threads(count)
