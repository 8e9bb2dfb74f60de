"""The device that a run computes on: its settings, its name, its memory."""

import os
import resource
import subprocess
from pathlib import Path

import jax

from slm_core.config import Config
from slm_core.errors import UserError


def prepare_device(config: Config) -> jax.Device:
    """Picks the device and applies the process-wide settings that the config names, before JAX starts its backend.

    Raises:
      UserError: run.device=cuda where there is no GPU.
    """
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


def capability(device: jax.Device) -> tuple[int, ...] | None:
    """Returns a GPU's NVIDIA compute capability, None of a CPU."""
    return tuple(map(int, device.compute_capability.split("."))) if device.platform == "gpu" else None


def device_name(device: jax.Device, threads: int) -> str:
    """Returns what the device is, for reading. `threads`: of a CPU; 0: one a core."""
    return device.device_kind if device.platform == "gpu" else f"CPU, {threads or os.cpu_count()} threads"


def peak_memory_bytes(device: jax.Device) -> int:
    """Returns the peak memory of a GPU so far, of the process on a CPU."""
    if device.platform == "gpu":
        return device.memory_stats()["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _limit_gpu_memory(budget: float) -> None:
    """Lets JAX take `budget` bytes of the first GPU, by the fraction that its backend reads from the environment."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        total = float(subprocess.run(query, capture_output=True, text=True, check=True).stdout) * 2**20
    except (OSError, subprocess.CalledProcessError, ValueError):
        return
    if budget < total:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{budget / total:.4f}")
