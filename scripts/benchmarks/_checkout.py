"""Imports modules of a checkout that a user has."""

import importlib
import sys
from types import ModuleType

from slm_core.errors import UserError


def of_checkout(name: str, folder: str, module: str) -> ModuleType:
    """Imports a module of the checkout of the peer `name`.

    Raises:
      UserError: it imports a package that is not installed.
    """
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise UserError(
            f"--peers={name}={folder}: its {module} imports {error.name}, which is not installed; run uv pip install"
            f" {package}"
        ) from None
