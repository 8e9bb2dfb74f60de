"""Checks a file that the user asks for before the work begins."""

import os
from collections.abc import Sequence
from pathlib import Path

from slm_core.errors import UserError

PICTURES = (".png", ".svg")
"""Suffixes of pictures."""


def output_file(flag: str, text: str, suffixes: Sequence[str]) -> Path:
    """Returns the path that a flag names.

    Raises:
      UserError: it has another suffix, its folder is not there, or it cannot be written.
    """
    path = Path(text)
    if path.suffix not in suffixes:
        raise UserError(f"--{flag}={text} must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"--{flag}={text}: there is no folder {path.parent}; make it, or name another")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"--{flag}={text} cannot be written; name another file")
    return path
