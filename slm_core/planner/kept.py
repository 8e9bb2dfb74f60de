"""Plans that take seconds to make are kept on the disk, in the user's cache folder, for later processes."""

import contextlib
import functools
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from slm_core.files import write_atomically

SOURCES = Path(__file__).resolve().parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax")
"""Those that plan in XLA: in PyTorch a plan takes a second, and is not kept."""


def kept_on_disk(twin: str, question: Any, compute: Callable[[], list[int]]) -> list[int]:
    """Returns the answer to a question, from the disk if an earlier process computed it there.

    A change of the twin, of `slm_core` or of an installed package asks anew. A folder that cannot be used keeps
    nothing.

    Args:
      twin: the package that computes the answer, such as "slm_flax".
      question: what the answer depends on, beside the sources; `json.dumps` takes it.
    """
    asked = json.dumps([twin, question, _sources(twin), _versions()], sort_keys=True).encode()
    try:
        file = Path.home() / ".cache" / "lm-workbench" / "plans" / f"{xxhash.xxh3_128_hexdigest(asked)}.json"
    except RuntimeError:  # this user has no home folder
        return compute()
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(file.read_bytes(), type=list[int])
    answer = compute()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(answer))
    return answer


@functools.cache
def _sources(twin: str) -> str:
    digest = xxhash.xxh3_128()
    for file in sorted(path for package in ("slm_core", twin) for path in (SOURCES / package).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _versions() -> list[str]:
    return [importlib.metadata.version(package) for package in PACKAGES]
