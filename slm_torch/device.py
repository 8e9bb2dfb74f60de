"""The device that a run computes on: its settings, its name, its memory."""

import ctypes
import resource
import sys

import torch

from slm_core.config import Config
from slm_core.errors import UserError


def prepare_device(config: Config) -> torch.device:
    """Picks the device and applies the process-wide settings that the config names.

    Raises:
      UserError: run.device=cuda where there is no GPU.
    """
    wanted = config.run.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda, but PyTorch finds no NVIDIA GPU here: set run.device=auto or cpu")
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.backends.fp32_precision = "ieee"
    if wanted == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    budget, total = config.memory.budget_gb * 1e9, torch.cuda.get_device_properties(0).total_memory
    if 0 < budget < total:
        torch.cuda.set_per_process_memory_fraction(budget / total)
    return torch.device("cuda")


def capability(device: torch.device) -> tuple[int, int] | None:
    """Returns a GPU's NVIDIA compute capability, None of a CPU."""
    return torch.cuda.get_device_capability() if device.type == "cuda" else None


def device_name(device: torch.device) -> str:
    """Returns what the device is, for reading."""
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the peak memory of a GPU so far, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep_freed_memory() -> None:
    """Lets glibc hand freed activations out again instead of returning them to the system: 3% of a step on a CPU."""
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(mmap_threshold, 32 * 2**20)
            mallopt(trim_threshold, 2**31 - 1)
