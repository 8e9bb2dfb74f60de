"""Describes the machine that a measurement was made on."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> str:
    """Describes the machine, its libraries and its load in one line. A busy machine measures nothing."""
    libraries = []
    for name in ("torch", "jax", "flax", "optax"):
        try:
            libraries.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{processor()}{load}, {', '.join(libraries)}"


def processor() -> str:
    """Describes the processor: its name and the number of cores."""
    return f"{cpu_name()}, {os.cpu_count()} cores"


def cpu_name() -> str:
    """Returns the processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def process_peak_bytes() -> int:
    """Returns the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
