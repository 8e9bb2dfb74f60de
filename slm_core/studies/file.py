"""Study files: Python files with `get_study() -> dict`, which say what scripts/compare.py does without flags."""

import runpy
from pathlib import Path
from typing import Any

from slm_core.config import presets
from slm_core.config.fields import field_table, unknown_field
from slm_core.config.values import convert
from slm_core.errors import UserError, nearest

FIELDS = {
    "question": str,
    "config": str,
    "overrides": dict,
    "variants": dict,
    "seeds": int,
    "frameworks": str,
    "match": str,
    "tune": list,
    "trials": int,
}
"""{key of a study: its type}. Only "variants" is needed: {name: {dotted field: value}}, the baseline first."""


def load_study(path: str) -> dict[str, Any]:
    """Loads a study file.

    Raises:
      UserError: there is no such file, it fails, or a key or a field is not what it should be.
    """
    file = Path(path) if Path(path).is_file() else presets.ROOT / path
    if not file.is_file():
        known = [str(each.relative_to(presets.ROOT)) for each in (presets.ROOT / "configs" / "studies").glob("*.py")]
        raise UserError(f"--study={path} is not a file{nearest(path, known)}: studies are {', '.join(sorted(known))}")
    try:
        get_study = runpy.run_path(str(file)).get("get_study")
        study = get_study() if callable(get_study) else None
    except Exception as error:
        raise UserError(f"--study={path} fails: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(study, dict):
        raise UserError(f"--study={path}: write def get_study() returning a dict with {', '.join(FIELDS)}")
    for key, value in study.items():
        if key not in FIELDS:
            raise UserError(f"--study={path}: {key!r} is not one of {', '.join(FIELDS)}{nearest(key, FIELDS)}")
        if not isinstance(value, FIELDS[key]):
            raise UserError(f"--study={path}: {key}={value!r} must be of type {FIELDS[key].__name__}")
    for fields in (study.get("overrides", {}), *study.get("variants", {}).values()):
        _check_fields(path, fields)
    return study


def _check_fields(path: str, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if name not in field_table():
            raise UserError(f"--study={path}: {unknown_field(name)}")
        fields[name] = convert(f"--study={path}: {name}", value, field_table()[name].type)
