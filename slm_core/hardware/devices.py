"""Finds out what this machine has, without starting any framework."""

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
"""Files of a container: its limit, the memory that it uses, and how much of that is cache; cgroup version 2, then 1."""
_PATIENCE = 20
"""Seconds to wait for nvidia-smi."""

Shapes = Sequence[tuple[int, int, int]]
"""Matrix products [m, k] @ [k, n], each as (m, k, n)."""


@dataclass(frozen=True)
class Device:
    """A device, as a twin's `probe` describes it.

    Args:
      platform: "cpu" or "gpu".
      name: for the user to read.
      capability: a GPU's NVIDIA compute capability, such as (7, 5); None for a CPU.
      bfloat16: whether a GPU has bfloat16 in hardware.
      total, free: bytes of its memory. Memory of other processes is not free; memory that this one reserves unused is.
      fused: the kernel that computes model.attention.kernel=fused there, for the user to read.
      matmul_seconds: times matrix products in a dtype.
      copy_seconds: times a copy of an array of so many bytes.
    """

    platform: str
    name: str
    capability: tuple[int, int] | None
    bfloat16: bool
    total: int
    free: int
    fused: str
    matmul_seconds: Callable[[str, Shapes], float]
    copy_seconds: Callable[[int], float]

    @property
    def version(self) -> str:
        """A GPU's compute capability, for the user to read."""
        return "compute capability " + ".".join(map(str, self.capability or ()))


def has_nvidia_driver() -> bool:
    """Returns whether CUDA could start here: a device node is visible, and its library loads. Starts nothing.

    Both are needed. A container that was started without its GPU still sees the host's kernel module, and an image may
    ship the library on a machine without a device.
    """
    if not gpu_nodes():
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def gpu_nodes() -> bool:
    """Returns whether a device node of an NVIDIA GPU is visible here."""
    return any(Path(device).exists() for device in _DEVICES)


def in_container() -> bool:
    """Returns whether this process runs in a container of Docker, Podman or Kubernetes."""
    marks = ("/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io")
    return any(Path(mark).exists() for mark in marks)


def quiet_jax() -> None:
    """Sets JAX_PLATFORMS=cpu if there is no NVIDIA driver, so that JAX's CUDA plugin prints no traceback.

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
    """Makes CUDA's first GPU the one that `gpu_memory` asks about. By itself CUDA puts the fastest one first.

    Call it before a framework starts CUDA. It never overrides CUDA_DEVICE_ORDER.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def cpu_memory() -> tuple[int, int]:
    """Returns (total, free) bytes of the machine's memory, or of its container's.

    Free is what a new process could take. If the system does not tell (it is not Linux), all of it counts as free.
    """
    if not _MEMINFO.exists():
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
    total, free = kibibytes["MemTotal:"] * 1024, kibibytes["MemAvailable:"] * 1024
    limit, free_in_container = _container_memory() or (total, free)
    return (limit, min(free, free_in_container)) if limit < total else (total, free)


def _container_memory() -> tuple[int, int] | None:
    """Returns (limit, free) bytes of the memory of this process's container; None: it has no limit."""
    for names in _LIMITS:
        try:
            limit_text, used_text, stat = ((_CGROUP / name).read_text() for name in names)
            limit, used, parts = int(limit_text), int(used_text), dict(line.split() for line in stat.splitlines())
        except (OSError, ValueError):  # no such file; "max"
            continue
        cache = sum(int(parts.get(name, 0)) for name in ("active_file", "inactive_file"))
        return limit, max(limit - used + cache, 0)  # the system frees its cache as it needs it
    return None


def gpu_memory() -> tuple[int, int] | None:
    """Returns (total, free) bytes of the first visible GPU's memory, as its driver tells them; None: unknown.

    The memory of all processes counts, and no framework starts.
    """
    try:
        total, free = (round(float(number) * 2**20) for number in _ask_driver("memory.total,memory.free"))
    except ValueError:
        return None
    return total, free


def driver_facts() -> str:
    """Returns the first visible GPU's name and the version of its driver, for the user to read; "": unknown."""
    return ", driver ".join(_ask_driver("name,driver_version"))


def _ask_driver(facts: str) -> list[str]:
    """Asks nvidia-smi for facts about the first visible GPU; []: it does not answer."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    query = ["nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [word.strip() for word in answer.strip().split(",")]
