"""Measures the peak memory of one update, as XLA plans it: compiles the update, and never runs it.

XLA decides at compile time which arrays exist when. It compiles for this machine's CPU, or for the card that this
project is made for, even if that card is not here.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.stages import Compiled
from jax.typing import DTypeLike

from slm_core.config import Config
from slm_core.model.dropout import site_keys
from slm_core.planner.resolve import as_predicted
from slm_flax import evaluator, params
from slm_flax.numerics import DTYPES
from slm_flax.trainer import Engine

CARD = """
platform_name: "CUDA"
device_description_str: "NVIDIA GeForce GTX 1660 Ti"
gpu_device_info {
  cuda_compute_capability { major: 7 minor: 5 }
  core_count: 24
  fpus_per_core: 64
  clock_rate_ghz: 1.77
  device_memory_size: 1000000000000
  memory_bandwidth: 288000000000
  l2_cache_size: 1572864
  shared_memory_per_core: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 65536
  threads_per_core_limit: 1024
  threads_per_block_limit: 1024
  threads_per_warp: 32
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
runtime_version { major: 12 minor: 8 patch: 0 }
dnn_version_info { major: 9 minor: 10 }
"""
"""The card for XLA, as NVIDIA and the CUDA programming guide (compute capability 7.5) describe it.

Its memory is larger here: with the card's 6 GB XLA would compute some arrays again by itself, if they do not fit.
"""


def has_card() -> bool:
    """Tells whether XLA's compiler for the card is installed, as it is if JAX comes with CUDA."""
    try:
        card()
    except NotImplementedError:
        return False
    return True


def card() -> Sharding:
    """Places an array on the card.

    Raises:
      NotImplementedError: there is no compiler for the card.
    """
    topology = topologies.get_topology_desc(platform="cuda", target_config=CARD, topology="1x1x1")
    return NamedSharding(Mesh(np.array(topology.devices), ("card",)), PartitionSpec())


def measured(config: Config, vocab_size: int) -> int:
    """Counts the bytes of one update: its inputs, the outputs that are not written over them, and temporaries.

    Args:
      config: as `slm_core.planner.predict` takes it; run.device "cpu" is this machine's CPU; all else is the card.
      vocab_size: rows of the embedding.
    """
    return total(compiled_update(config, vocab_size))


def total(compiled: Compiled) -> int:
    """Counts the bytes of a compiled function. On a CPU XLA's `peak_memory_in_bytes` is too small."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        raise NotImplementedError("XLA says nothing about the memory of this device")
    arrays = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return arrays + sizes.temp_size_in_bytes


def compiled_update(config: Config, vocab_size: int) -> Compiled:
    """Compiles the engine's update for a batch of the config."""
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
    with _as_on_a_gpu() if on_card else contextlib.nullcontext():
        return engine.update.lower(state, pieces, scalar, array(sites.shape, sites.dtype), scalar).compile()


@contextlib.contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Lets layers choose as they do on a GPU, and turns JAX's cache on the disk off, inside the context.

    A program for another machine cannot be read back from that cache.
    """
    cached = jax.config.jax_enable_compilation_cache  # pyrefly: ignore[missing-attribute]  see device.py
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it reads the setting only once
    try:
        with mock.patch.object(jax, "default_backend", lambda: "gpu"):
            yield
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
        compilation_cache.reset_cache()


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
