"""Compiles for the card that this project is made for, even if that card is not here."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax
import numpy as np
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

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


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
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
