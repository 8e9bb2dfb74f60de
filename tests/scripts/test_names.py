"""No script's name may hide a module that somebody imports: Python puts a script's folder first on its path."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))


def installed(name: str) -> bool:
    """Says whether a name is a module of the standard library or of an installed package."""
    path = [
        entry for entry in sys.path if ROOT / "scripts" not in (place := Path(entry or ".").resolve(), *place.parents)
    ]
    spec = PathFinder.find_spec(name, path)
    return name in sys.stdlib_module_names or bool(spec and spec.loader)


def hiding(path: Path) -> str:
    """Names the module that a script's name hides; "" if it hides none."""
    return path.stem if installed(path.stem) or (ROOT / path.stem).is_dir() else ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_hides_no_module_and_no_package(path):
    assert hiding(path) == ""


@pytest.mark.parametrize("name", ["bisect", "numpy", "parity", "slm_core"])
def test_a_name_that_would_hide_something_is_found(name):
    assert hiding(ROOT / "scripts" / f"{name}.py") == name


def test_no_script_changes_the_path_of_imports():
    changing = [path.name for path in SCRIPTS if "sys.path" in path.read_text()]
    assert changing == ["_checkout.py"]  # for the checkouts that a user names
