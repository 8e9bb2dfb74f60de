"""Prepares the device that a run computes on, and measures it."""

import ctypes
import resource
import sys
import time
from collections.abc import Callable

import torch

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.hardware.devices import Device, Shapes, count_gpus_as_their_driver, cpu_memory
from slm_torch.layers.fused import FLASH_CAPABILITY
from slm_torch.numerics import DTYPES

TRIES = 5
"""Repetitions of a timing; the fastest counts."""


def prepare_device(config: Config) -> torch.device:
    """Picks the device, and applies the process-wide settings that the config names.

    Raises:
      UserError: run.device=cuda, but there is no GPU.
    """
    count_gpus_as_their_driver()
    requested = config.run.device
    if requested == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device=cuda, but PyTorch finds no NVIDIA GPU here: set run.device=auto or cpu")
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    # pyrefly: ignore[missing-attribute]  torch adds it when it is imported
    torch.backends.fp32_precision = "ieee"
    # By default cuBLAS may add up the parts of a product of 16-bit matrices in 16 bits.
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if requested == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    limit, total = config.memory.limit_gb * 1e9, torch.cuda.get_device_properties(0).total_memory
    if 0 < limit < total:
        torch.cuda.set_per_process_memory_fraction(limit / total)
    return torch.device("cuda")


def probe(device: torch.device) -> Device:
    """Measures a device: its name, capability and memory.

    PyTorch's memory-efficient attention runs on every GPU that this PyTorch supports, but needs a key head for each
    query head. Its FlashAttention needs fewer; it runs in 16 bits, without a mask, from compute capability 8.0 on.
    """

    def matmul_seconds(dtype: str, shapes: Shapes) -> float:
        return _matmul_seconds(device, DTYPES[dtype], shapes)

    def copy_seconds(size: int) -> float:
        source = torch.zeros(size // 4, device=device)
        target = torch.empty_like(source)
        return _fastest(device, lambda: target.copy_(source))

    times, name = (matmul_seconds, copy_seconds), device_name(device)
    if device.type == "cpu":
        return Device("cpu", name, None, False, *cpu_memory(), "PyTorch's kernel for CPUs", *times)
    free, total = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    capability = torch.cuda.get_device_capability()
    kernel = "PyTorch's memory-efficient kernel"
    if capability >= FLASH_CAPABILITY:
        kernel = "PyTorch's FlashAttention in 16 bits, its memory-efficient kernel in 32"
    return Device("gpu", name, capability, bfloat16, total, free, kernel, *times)


def device_name(device: torch.device) -> str:
    """Names the device, for people to read."""
    return torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def peak_memory_bytes(device: torch.device) -> int:
    """Measures the peak memory of a GPU so far, or of the process on a CPU, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep_freed_memory() -> None:
    """Lets glibc reuse freed activations instead of returning them to the system, which saves 3% of a step on a CPU."""
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(mmap_threshold, 32 * 2**20)
            mallopt(trim_threshold, 2**31 - 1)


def _matmul_seconds(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> float:
    """Times matrix products one after another, in seconds; the fastest of TRIES counts."""
    pairs = [
        (torch.ones((m, k), dtype=dtype, device=device), torch.ones((k, n), dtype=dtype, device=device))
        for m, k, n in shapes
    ]

    return _fastest(device, lambda: [a @ b for a, b in pairs])


def _fastest(device: torch.device, work: Callable[[], object]) -> float:
    """Times work on a device, in seconds; the fastest of TRIES counts."""

    def seconds() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds()  # loads the kernels
    return min(seconds() for _ in range(TRIES))
