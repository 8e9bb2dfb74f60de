"""Measures the peak memory of one update, as XLA plans it: compiles the update, and never runs it.

XLA decides at compile time which arrays exist when. It compiles for this machine's CPU, or for the card that this
project is made for, even if that card is not here.
"""

import contextlib
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.stages import Compiled
from jax.typing import DTypeLike

from slm_core.config import Config
from slm_core.model.dropout import site_keys
from slm_core.planner.resolve import as_predicted
from slm_flax import evaluator, params
from slm_flax.card import as_on_a_gpu, card
from slm_flax.numerics import DTYPES
from slm_flax.trainer import Engine

QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""XLA plans the memory before LLVM makes the machine's code of the program, and that code never runs."""


def measured(config: Config, vocab_size: int) -> int:
    """Counts the bytes of one update: its inputs, the outputs that are not written over them, and temporaries.

    Args:
      config: as `slm_core.planner.predict` takes it; run.device "cpu" is this machine's CPU; all else is the card.
      vocab_size: rows of the embedding.
    """
    sizes = planned(config, vocab_size)  # on a CPU its `peak_memory_in_bytes` is too small
    arrays = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return arrays + sizes.temp_size_in_bytes


def planned(config: Config, vocab_size: int) -> Any:
    """Returns XLA's plan of one update; its arguments are those of `measured`."""
    sizes = compiled_update(config, vocab_size).memory_analysis()
    if sizes is None:
        raise NotImplementedError("XLA says nothing about the memory of this device")
    return sizes


def compiled_update(config: Config, vocab_size: int) -> Compiled:
    """Compiles the engine's update for a batch of the config, to read XLA's plan: do not run it, for it is slow."""
    on_card = config.run.device != "cpu"
    place = card() if on_card else None
    engine = unallocated(config, vocab_size)
    rows = config.train.batch_size
    micro = config.train.micro_batch_size or rows
    sites = site_keys(config.seed, 0, config.model.n_layers)

    def array(shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    scalar = array((), DTYPES[config.precision.params])
    pieces = array((rows // micro, micro, config.data.seq_len + 1), jnp.int32)
    state = jax.tree.map(lambda x: array(x.shape, x.dtype), engine.state)
    quick = None if on_card else QUICK
    with as_on_a_gpu() if on_card else contextlib.nullcontext():
        return engine.update.lower(state, pieces, scalar, array(sites.shape, sites.dtype), scalar).compile(quick)


def unallocated(config: Config, vocab_size: int) -> Engine:
    """Makes an engine whose state is shapes and dtypes without values."""
    engines = []

    def state() -> dict:
        engines.append(Engine(config, vocab_size))
        return engines[0].state

    with mock.patch.object(params, "initialise", _zeros), mock.patch.object(evaluator, "resolve_auto", as_predicted):
        shapes = jax.eval_shape(state)
    engines[0].state = shapes
    return engines[0]


def _zeros(model: nnx.Module, seed: int, dtype: np.dtype) -> params.Params:
    """Replaces `params.initialise`, whose values come from NumPy and would take memory."""
    return {name: jnp.zeros(shape, spec.dtype or dtype) for name, (shape, spec) in params.specs(model).items()}
