"""What this machine has, asked without starting any framework."""

import ctypes
import os
import sys
from pathlib import Path

_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl")  # Linux, WSL, Jetson


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
