"""Writes and reads the `config.json` of a run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.config.conversion import from_config_dict
from slm_core.errors import UserError, nearest
from slm_core.files import write_atomically
from slm_core.runs.provenance import commit, versions

IMPORTED = "imported"
"""Takes the place of the fingerprint of the data if a model was imported."""

BEFORE_CONFIG = {".lock", "tokenizer", "config.json.tmp"}
"""Names in a folder whose run ended before config.json was written."""


def write_description(
    path: Path, config: Config, framework: str, preset: str, fingerprint: str, vocab_size: int, **more: Any
) -> None:
    """Writes the config.json of the run in `path`; `more` are further fields of it."""
    description = {
        "framework": framework,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "data": {"fingerprint": fingerprint, "vocab_size": vocab_size},
        "versions": versions(),
        "commit": commit(),
        **more,
    }
    write_atomically(path / "config.json", json.dumps(description, indent=2) + "\n")


def add_to_description(path: Path, **fields: Any) -> None:
    """Sets fields of an existing config.json."""
    description = json.loads((path / "config.json").read_text()) | fields
    write_atomically(path / "config.json", json.dumps(description, indent=2) + "\n")


def read_description(folder: Path) -> dict[str, Any]:
    """Reads what a run's config.json says.

    Returns:
      "config" (a Config), "framework", "fingerprint", "vocab_size"; and "imported", "resolved", "tokens", "origin" and
      "changes", which are None if config.json does not have them.

    Raises:
      UserError: there is no config.json, or it is broken.
    """
    try:
        saved = json.loads((folder / "config.json").read_text())
        saved["config"] = from_config_dict(saved["config"])
        fields = {name: saved[name] for name in ("framework", "config")}
        fields |= {name: saved.get(name) for name in ("imported", "resolved", "tokens", "origin", "changes")}
        return fields | saved["data"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not a run: it has no config.json{other_runs(folder)}") from error
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}: broken ({error!r}); restore the file or train anew") from error


def other_runs(folder: Path) -> str:
    """Makes the end of an error about a folder that is not a run: names a run like it, or some beside it."""
    runs = [path.parent.name for path in folder.parent.glob("*/config.json")]
    if not runs:
        return f"; there are no runs in {folder.parent}"
    return nearest(folder.name, runs) or f"; runs in {folder.parent}: {', '.join(sorted(runs)[:5])}"
