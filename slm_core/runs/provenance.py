"""Records the software that made a run."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

_PACKAGES = (
    "lm-workbench",
    "numpy",
    "torch",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "safetensors",
    "grain",
    "tokenizers",
)


def versions() -> dict[str, str]:
    """Returns the version of Python and of each installed package that shapes a run. Imports none of them."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> str | None:
    """Returns the git commit of this code, with "-dirty" if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
