"""Prepares the device that a run computes on, and measures it."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.hardware.compute import BFLOAT16_CAPABILITY
from slm_core.hardware.devices import Device, Shapes, count_gpus_as_their_driver, cpu_memory, gpu_memory
from slm_core.logging import say_once
from slm_flax.numerics import DTYPES

TRIES = 5
"""Repetitions of a timing; the fastest counts."""

MEMORY_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""Variables for the share of a GPU's memory that JAX may take: the new name and the old. JAX refuses both at once."""


def prepare_device(config: Config) -> jax.Device:
    """Picks the device, and applies the process-wide settings that the config names, before JAX starts its backend.

    Raises:
      UserError: run.device=cuda, but there is no GPU.
    """
    count_gpus_as_their_driver()
    jax.config.update("jax_enable_x64", config.precision.params == "float64")
    # JAX's own default rounds float32 matrix products to TF32 on GPUs that have it; PyTorch's does not.
    jax.config.update("jax_default_matmul_precision", "highest")
    _keep_what_is_compiled()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if config.run.threads:
        os.environ["NPROC"] = str(config.run.threads)  # XLA sizes its CPU thread pool by it
    if config.run.device != "cpu":
        _limit_gpu_memory(config.memory.limit_gb * 1e9)
    if config.run.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    device = jax.devices()[0]
    if config.run.device == "cuda" and device.platform != "gpu":
        raise UserError("run.device=cuda, but JAX finds no NVIDIA GPU here: set run.device=auto or cpu")
    return device


def probe(device: jax.Device, threads: int) -> Device:
    """Measures a device: its name, capability and memory. `threads`: see `device_name`."""

    def matmul_seconds(dtype: str, shapes: Shapes) -> float:
        return _matmul_seconds(device, DTYPES[dtype], shapes)

    def copy_seconds(size: int) -> float:
        source, copy = jnp.zeros(size // 4, jnp.float32, device=device), jax.jit(jnp.copy)
        return _fastest(lambda: copy(source))

    times, name = (matmul_seconds, copy_seconds), device_name(device, threads)
    if device.platform == "cpu":
        return Device("cpu", name, None, False, *cpu_memory(), "JAX's function, in blocks of queries", *times)
    major, minor = map(int, device.compute_capability.split("."))
    total, free = _gpu_memory(device)
    kernel = "flash: JAX's function would hold every score"
    bfloat16 = (major, minor) >= BFLOAT16_CAPABILITY
    return Device("gpu", name, (major, minor), bfloat16, total, free, kernel, *times)


def device_name(device: jax.Device, threads: int) -> str:
    """Names the device, for people to read. `threads`: of a CPU; 0: one per core."""
    return device.device_kind if device.platform == "gpu" else f"CPU, {threads or os.cpu_count()} threads"


def peak_memory_bytes(device: jax.Device) -> int:
    """Measures the peak memory of a GPU so far (0: JAX does not count it), or of the process on a CPU, in bytes."""
    if device.platform == "gpu":
        return (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _keep_what_is_compiled() -> None:
    """Lets JAX keep compiled functions for later processes; warns and goes on without if the folder is of no use."""
    # pyrefly: ignore[missing-attribute]  jax adds its settings when it is imported
    chosen = jax.config.jax_compilation_cache_dir
    folder, why = None, ""
    try:
        folder = Path(chosen) if chosen else Path.home() / ".cache" / "lm-workbench" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            why = f"{folder} cannot be written"
    except RuntimeError:
        why = "this user has no home folder"
    except OSError as error:
        why = f"{error.filename} cannot be made ({error.strerror})"
    if why:
        say_once(f"{why}: JAX compiles anew in each process; set JAX_COMPILATION_CACHE_DIR to a folder for the results")
    jax.config.update("jax_compilation_cache_dir", None if why else str(folder))


def _limit_gpu_memory(limit: float) -> None:
    """Lets JAX take `limit` bytes of the first GPU (0: all).

    JAX's backend reads a fraction of the memory from the environment. Its default is three quarters.
    """
    memory = gpu_memory()
    if memory and not any(os.environ.get(name) for name in MEMORY_FRACTIONS):
        total, _ = memory
        os.environ["XLA_CLIENT_MEM_FRACTION"] = f"{min(limit or total, total) / total:.4f}"


def _gpu_memory(device: jax.Device) -> tuple[int, int]:
    """Measures a GPU's memory, and how much of it this process could still take, in bytes.

    Raises:
      UserError: neither JAX nor the driver tells.
    """
    stats, memory = device.memory_stats(), gpu_memory()
    if not stats or "bytes_limit" not in stats:  # as with XLA_PYTHON_CLIENT_ALLOCATOR=platform
        if memory is None:
            raise UserError(
                "run.device: neither JAX nor nvidia-smi tells the GPU's memory: unset XLA_PYTHON_CLIENT_ALLOCATOR"
            )
        return memory
    allowed = stats["bytes_limit"] - stats["bytes_in_use"]
    if memory is None:
        return stats["bytes_limit"], allowed
    total, free = memory
    unused = max(stats.get("pool_bytes", 0) - stats["bytes_in_use"], 0)  # JAX keeps what it once took
    return total, min(free + unused, allowed)


def _matmul_seconds(device: jax.Device, dtype: jnp.dtype, shapes: Shapes) -> float:
    """Times matrix products one after another, in seconds; the fastest of TRIES counts."""
    with jax.enable_x64(True):  # else float64 is timed in float32
        pairs = [(jnp.ones((m, k), dtype, device=device), jnp.ones((k, n), dtype, device=device)) for m, k, n in shapes]
        product = jax.jit(jnp.matmul)
        return _fastest(lambda: [product(a, b) for a, b in pairs])


def _fastest(work: Callable[[], object]) -> float:
    """Times work, in seconds; the fastest of TRIES counts."""

    def seconds() -> float:
        began = time.perf_counter()
        jax.block_until_ready(work())
        return time.perf_counter() - began

    seconds()  # compiles
    return min(seconds() for _ in range(TRIES))
