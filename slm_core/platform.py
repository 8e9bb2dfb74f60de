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
      fused: what computes model.attention.kernel=fused there; "": nothing that would be better than flash.
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


def cpu_memory() -> tuple[int, int]:
    """Returns the machine's memory and how much of it a new process could take, in bytes.

    Where the system does not tell how much is free (it is not Linux), that is all of it.
    """
    if not _MEMINFO.exists():
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
    return kibibytes["MemTotal:"] * 1024, kibibytes["MemAvailable:"] * 1024


def gpu_memory() -> tuple[int, int] | None:
    """Returns the first visible GPU's memory and how much of it is free, in bytes, as its driver tells; None: unknown.

    Every process's share counts, and no framework starts.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    query = ["nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits", f"--id={first}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        total, free = (round(float(number) * 2**20) for number in answer.split(","))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return total, free
