"""Builds both twins of one case in one process, and the batches that they read."""

import functools

import jax
import numpy as np
import torch

import slm_flax.trainer
import slm_torch.trainer
from parity.cases import PROOFS, Case
from parity.checks import CHECKS
from parity.probe import Probe, probe_flax, probe_torch
from parity.state_transfer import perturbed, snapshot
from slm_core.config.fields import with_values
from slm_core.protocols import IGNORE, first_of_document, unscored

PERTURBATION = 1
"""Seed of the perturbed weights."""


class Pair:
    """The twins of a case in one precision.

    JAX's floating width is a setting of the process, so only one pair may be alive at a time.
    """

    def __init__(self, case: Case, precision: str):
        self.case, self.precision = case, precision
        params = precision if precision in PROOFS else "float32"
        self.config = with_values(case.config, {"precision.params": params, "precision.compute": precision})
        # Many cases compile the same programs, so even small programs are worth keeping in the cache.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_disable_most_optimizations", not case.optimized)
        self.flax = slm_flax.trainer.build(self.config, case.vocab_size)
        self.torch = slm_torch.trainer.build(self.config, case.vocab_size)
        self.engines = {"torch": self.torch, "flax": self.flax}
        restarts = any(CHECKS[name].restarts for name in case.checks)
        self.initial = {name: snapshot(engine) for name, engine in self.engines.items()} if restarts else {}

    def start(self) -> None:
        """Takes both twins back to the state that the seed gave each of them."""
        for name, engine in self.engines.items():
            engine.import_state(self.initial[name])

    def perturb(self) -> None:
        """Gives both twins the same state, which is non-zero everywhere."""
        # It starts from the seed's state each time, because perturbing multiplies the scales of matrices in few bits.
        state = perturbed(self.initial.get("torch") or self.torch.export_state(), PERTURBATION)
        for engine in self.engines.values():
            engine.import_state(state)

    @functools.cached_property
    def tokens(self) -> np.ndarray:
        """A batch with tokens that do not count: the last of the first row and of the last, and two of the first row
        that are read."""
        tokens = np.array(self.batch(0))
        tokens[0, 1:3] = unscored(tokens[0, 1:3])
        tokens[0, -2:] = IGNORE
        tokens[-1, -1] = IGNORE
        return tokens

    @functools.cached_property
    def probes(self) -> tuple[Probe, Probe]:
        """The logits, loss and gradients of `tokens` with perturbed weights: those of torch, then those of flax."""
        self.perturb()
        return probe_torch(self.torch, self.tokens), probe_flax(self.flax, self.tokens)

    def batch(self, step: int) -> np.ndarray:
        """Returns a batch of the case; see `make_batch`."""
        return make_batch(self.case, step)


def make_batch(case: Case, step: int) -> np.ndarray:
    """Makes a batch with something to learn: arithmetic progressions with an eighth of their tokens replaced.

    With data.document_mask, every row but the last holds several documents: the last is decoded, as one. A row alone
    is not decoded.
    """
    rng = np.random.default_rng(step)
    shape = (case.rows, case.length + 1)
    first, stride = rng.integers(0, case.vocab_size, (case.rows, 1)), rng.integers(1, 4, (case.rows, 1))
    tokens = (first + stride * np.arange(shape[1])) % case.vocab_size
    noise = rng.integers(0, case.vocab_size, shape)
    tokens = np.where(rng.random(shape) < 0.125, noise, tokens).astype(np.int32)
    if case.config.data.document_mask:
        begins = rng.random(shape) < 3 / shape[1]
        begins[:, :3] = False  # `tokens` marks those of the first row otherwise
        begins[1:][-1:] = False
        tokens = np.where(begins, first_of_document(tokens), tokens)
    return tokens


def release() -> None:
    """Drops compiled programs and the arrays that they keep, to make room for the next pair."""
    import gc

    gc.collect()
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


def pin_threads(count: int = 1) -> None:
    """Sets the number of PyTorch's threads, on which the order of its sums depends."""
    torch.set_num_threads(count)
