"""Runs the Flax twin on imported weights, in a process of its own: PyTorch is not loaded there."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np

from parity.oracle.stepping import stepped
from slm_core.config import Config
from slm_core.model.weights import Weights

Logits = tuple[np.ndarray, np.ndarray]


class FlaxProcess:
    """Computes logits and cached logits in the other process."""

    def __init__(self, pool: ProcessPoolExecutor):
        self.pool = pool

    def __call__(self, config: Config, vocab_size: int, weights: Weights, tokens: np.ndarray) -> Logits:
        return self.pool.submit(_logits, config, vocab_size, dict(weights), tokens).result()


@contextmanager
def flax_process() -> Iterator[FlaxProcess]:
    """Starts the process, and ends it."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_start) as pool:
        yield FlaxProcess(pool)


XLA = "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""A model runs a few times, so that compiling takes most of the time."""


def _start() -> None:
    os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA}
    logging.getLogger().setLevel(logging.ERROR)


def _logits(config: Config, vocab_size: int, weights: Weights, tokens: np.ndarray) -> Logits:
    """Runs the model op by op. XLA then compiles each op once for all variants, and not each variant's programs."""
    import jax
    import jax.numpy as jnp

    from slm_flax.evaluator import Evaluator
    from slm_flax.params import bind

    with jax.disable_jit():
        evaluator = Evaluator(config, vocab_size, weights)
        model = bind(evaluator.model, evaluator.params)
        logits = model.logits(model(jnp.asarray(tokens))[0])
        return np.asarray(logits), stepped(evaluator.decoder(), tokens[0])
