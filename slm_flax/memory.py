"""What one update takes at its peak, as XLA plans it: compiled, never run, and nothing is allocated.

XLA decides before it runs which arrays live when, so the compiler can be asked. A CPU's plan stands for a GPU's but for
what their compilers fuse, and for float16, which a CPU computes in float32.
"""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.stages import Compiled

from slm_core.config import Config
from slm_core.hashing import site_keys
from slm_core.settle import as_predicted
from slm_flax import evaluator, params
from slm_flax.numerics import DTYPES
from slm_flax.trainer import Engine


def measured(config: Config, vocab_size: int) -> int:
    """Returns the bytes of one update: what goes in, what comes out and is not written over it, and XLA's own.

    Args:
      config: as `slm_core.budget.predict` takes it.
      vocab_size: rows of the embedding.
    """
    return total(compiled_update(config, vocab_size))


def total(compiled: Compiled) -> int:
    """Returns the bytes of a compiled function; `peak_memory_in_bytes` says less on a CPU than lives at once there."""
    sizes = compiled.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return held + sizes.temp_size_in_bytes


def compiled_update(config: Config, vocab_size: int) -> Compiled:
    """Returns the engine's update, compiled for a batch of the config."""
    engine = unallocated(config, vocab_size)
    rows = config.train.batch_size
    micro = config.train.micro_batch_size or rows
    sites = site_keys(config.seed, 0, config.model.n_layers)
    scalar = jax.ShapeDtypeStruct((), DTYPES[config.precision.params])
    pieces = jax.ShapeDtypeStruct((rows // micro, micro, config.data.seq_len + 1), jnp.int32)
    return engine.update.lower(
        engine.state, pieces, scalar, jax.ShapeDtypeStruct(sites.shape, sites.dtype), scalar
    ).compile()


def unallocated(config: Config, vocab_size: int) -> Engine:
    """Returns an engine whose state is shapes and dtypes."""
    engines = []

    def state() -> dict:
        engines.append(Engine(config, vocab_size))
        return engines[0].state

    with mock.patch.object(params, "initialise", _zeros), mock.patch.object(evaluator, "settle", as_predicted):
        shapes = jax.eval_shape(state)
    engines[0].state = shapes
    return engines[0]


def _zeros(model: nnx.Module, seed: int, dtype: np.dtype) -> params.Params:
    """Takes the place of `params.initialise`, whose values come from NumPy and so would be made."""
    return {name: jnp.zeros(shape, spec.dtype or dtype) for name, (shape, spec) in params.specs(model).items()}
