"""Finds, loads and lists presets: Python files with `get_config(variant) -> ConfigDict`."""

import inspect
import re
import runpy
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from slm_core.config import Config
from slm_core.config.conversion import from_config_dict
from slm_core.errors import UserError, nearest

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = "configs/default.py"


def choose(variants: Mapping[str, Callable[[], Config]], variant: str) -> Config:
    """Makes the config of a variant; raises UserError with the nearest one if there is none of this name."""
    if variant not in variants:
        raise UserError(f"'{variant}' is not a variant: choose from {', '.join(variants)}{nearest(variant, variants)}")
    return variants[variant]()


def find(path: str) -> Path:
    """Finds the file of a preset: in the current directory, or else in the repository."""
    for base in (Path.cwd(), ROOT):
        if (base / path).is_file():
            return base / path
    known = [str(file.relative_to(ROOT)) for file in preset_files()]
    raise UserError(f"--config={path} is not a file{nearest(path, known)}: presets are {', '.join(known)}")


def preset_files() -> list[Path]:
    """Returns the files of `configs/`, the default first."""
    files = sorted(file for file in (ROOT / "configs").glob("*.py") if not file.name.startswith("_"))
    return sorted(files, key=lambda file: file.name != Path(DEFAULT).name)


def load(spec: str) -> tuple[Config, str]:
    """Loads a preset.

    Args:
      spec: "PATH" or "PATH:VARIANT".

    Returns:
      The config, and its name: "llama-60m" for configs/llama.py:60m, "default" for configs/default.py.

    Raises:
      UserError: no such file or variant, a file that fails, a field that the schema lacks, a value of a wrong type.
    """
    path, colon, variant = spec.partition(":")
    get_config = _run(path).get("get_config")
    if not callable(get_config):
        raise UserError(f"--config={spec} has no get_config: write def get_config(variant=...) returning a ConfigDict")
    default = default_variant(get_config)
    if colon and default is None:
        raise UserError(f"--config={spec}: {path} has no variants; use --config={path}")
    if not colon and default is inspect.Parameter.empty:
        raise UserError(f"--config={spec} needs a variant: use --config={path}:VARIANT")
    config = _make(spec, get_config, [variant] if colon else [])
    words = [Path(path).stem, variant if colon else default or ""]
    return config, "-".join(re.sub(r"[^\w.+]+", "_", word) for word in words if word)


def _make(spec: str, get_config: Callable[..., Any], arguments: list[str]) -> Config:
    try:
        values = get_config(*arguments)
        if not hasattr(values, "keys"):
            raise UserError("get_config did not return a ConfigDict: return to_config_dict(Config(...))")
        return from_config_dict(values)
    except UserError as error:
        raise UserError(f"--config={spec}: {error}") from None
    except Exception as error:
        raise UserError(f"--config={spec} fails: {_summary(error)}") from error


def default_variant(get_config: Callable[..., Any]) -> Any:
    """Returns the default of get_config's variant; None if it takes none, Parameter.empty if there is no default."""
    parameters = list(inspect.signature(get_config).parameters.values())
    return parameters[0].default if parameters else None


def _run(path: str) -> dict[str, Any]:
    file = find(path)
    try:
        return runpy.run_path(str(file))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--config={path} fails: {_summary(error)}") from error


def _summary(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}, line {error.lineno}"
    line = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({Path(line.filename).name}, line {line.lineno})"


class Listed(NamedTuple):
    """A preset as `--help` shows it."""

    path: str
    doc: str
    default: str
    variants: dict[str, str]


def listing() -> list[Listed]:
    """Lists the presets of `configs/`, with the first lines of their docstrings and of their variants' docstrings."""
    listed = []
    for file in preset_files():
        path = str(file.relative_to(ROOT))
        module = _run(path)
        variants = {name: _first_line(make) for name, make in module.get("VARIANTS", {}).items()}
        default = default_variant(module["get_config"]) or ""
        listed.append(Listed(path, (module.get("__doc__") or "").strip().split("\n")[0], default, variants))
    return listed


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
