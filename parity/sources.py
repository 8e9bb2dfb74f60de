"""A hash of sources: what a kept result depends on."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]


def hash_of(files: Iterable[Path]) -> str:
    """Returns a hash of the places of files in the project, and of their contents, in the order that is given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def python_files(*folders: str) -> list[Path]:
    """Lists the Python files in folders of the project."""
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
