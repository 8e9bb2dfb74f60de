"""What this machine has, asked without starting any framework."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl")  # Linux, WSL, Jetson
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Of a container: its limit, what it uses, and what of that is cache; in cgroups of version 2 and 1."""
_PATIENCE = 20
"""Seconds to wait for nvidia-smi."""

Shapes = Sequence[tuple[int, int, int]]
"""Matrix products [m, k] @ [k, n], each as (m, k, n)."""


@dataclass(frozen=True)
class Device:
    """What a device has, as a twin's `probe` finds it.

    Args:
      platform: "cpu" or "gpu".
      name: for reading.
      capability: a GPU's NVIDIA compute capability, (7, 5); None of a CPU.
      bfloat16: whether a GPU has it in hardware.
      total, free: bytes of its memory. What other processes hold is not free; what this one holds unused is.
      fused: what computes model.attention.kernel=fused there, for reading.
      matmul_seconds: times matrix products in a dtype.
    """

    platform: str
    name: str
    capability: tuple[int, int] | None
    bfloat16: bool
    total: int
    free: int
    fused: str
    matmul_seconds: Callable[[str, Shapes], float]

    @property
    def version(self) -> str:
        """A GPU's compute capability, for reading."""
        return "compute capability " + ".".join(map(str, self.capability or ()))


def has_nvidia_driver() -> bool:
    """Says whether CUDA could start here: a device node is visible and its library loads. Starts nothing.

    Both are needed: a container started without its GPU still sees the host's kernel module, and an image may ship the
    library where there is no device.
    """
    if not any(Path(device).exists() for device in _DEVICES):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def quiet_jax() -> None:
    """Sets JAX_PLATFORMS=cpu where there is no NVIDIA driver, so that JAX's CUDA plugin prints no traceback.

    Call it before anything imports jax (grain does). It never overrides the variable and never hides a GPU.
    """
    if "JAX_PLATFORMS" not in os.environ and "jax" not in sys.modules and not has_nvidia_driver():
        os.environ["JAX_PLATFORMS"] = "cpu"


def spare_gpu(framework: str) -> None:
    """Lets JAX start quietly beside the twin that computes. Call it before anything imports jax (grain does)."""
    quiet_jax()
    if framework == "torch":
        # Reading a Flax run's checkpoint starts JAX as well, which must leave the GPU to PyTorch.
        os.environ["JAX_PLATFORMS"] = "cpu"


def count_gpus_as_their_driver() -> None:
    """Lets CUDA's first GPU be the one that `gpu_memory` asks about; CUDA itself puts the fastest first.

    Call it before a framework starts CUDA. It never overrides CUDA_DEVICE_ORDER.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def cpu_memory() -> tuple[int, int]:
    """Returns the machine's memory, or its container's, and how much of it a new process could take, in bytes.

    Where the system does not tell how much is free (it is not Linux), that is all of it.
    """
    if not _MEMINFO.exists():
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
    total, free = kibibytes["MemTotal:"] * 1024, kibibytes["MemAvailable:"] * 1024
    limit, unused = _container_memory() or (total, free)
    return (limit, min(free, unused)) if limit < total else (total, free)


def _container_memory() -> tuple[int, int] | None:
    """Returns the memory that this process's container may take and what is left of it, in bytes; None: no limit."""
    for names in _LIMITS:
        try:
            limit, used, stat = ((_CGROUP / name).read_text() for name in names)
            limit, used, parts = int(limit), int(used), dict(line.split() for line in stat.splitlines())
        except (OSError, ValueError):  # no such file; "max"
            continue
        cache = sum(int(parts.get(name, 0)) for name in ("active_file", "inactive_file"))
        return limit, max(limit - used + cache, 0)  # the system takes its cache back as it needs it
    return None


def gpu_memory() -> tuple[int, int] | None:
    """Returns the first visible GPU's memory and how much of it is free, in bytes, as its driver tells; None: unknown.

    Every process's share counts, and no framework starts.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    query = ["nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout
        total, free = (round(float(number) * 2**20) for number in answer.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return total, free
