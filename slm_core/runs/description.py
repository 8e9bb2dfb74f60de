"""Writes and reads the `config.json` of a run. Its last field is a checksum, and each checkpoint has a copy of it."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal

from slm_core.config import Config
from slm_core.config.conversion import from_config_dict
from slm_core.errors import UserError, nearest
from slm_core.json_files import Broken, Count, Schema, read_sealed, write_sealed
from slm_core.logging import say, say_once
from slm_core.manifest import FileSum, file_sums
from slm_core.runs.checkpoints import list_entries, unused
from slm_core.runs.fingerprints import Identity, config_fingerprint
from slm_core.runs.provenance import commit, versions
from slm_core.runs.whole import damage

IMPORTED = "imported"
"""Takes the place of the fingerprint of the data if a model was imported."""

BEFORE_CONFIG = {".lock", "tokenizer", "config.json.tmp"}
"""Names in a folder whose run ended before config.json was written."""


class DataFacts(Schema):
    """The data of a run."""

    fingerprint: str
    vocab_size: Count


Changes = dict[str, list[Any]]
"""{dotted field: [value before, value now]}."""


class Origin(Schema):
    """The checkpoint of another run that a run was started from."""

    run: str  # its folder
    framework: str  # the twin that trained it
    step: Count
    branch: bool  # whether the new run may have other settings
    changed: Changes


class Change(Schema):
    """Settings that changed when a run went on."""

    step: Count
    changed: Changes
    framework: list[str] | None = None  # [the twin before, the twin now]


class Description(Schema):
    """The fields of config.json; `Config` checks those of "config"."""

    framework: Literal["torch", "flax"]
    preset: str
    config: dict[str, Any]
    fingerprint: str  # of `config_fingerprint`
    data: DataFacts
    versions: dict[str, str]
    commit: str | None
    tokenizer: dict[str, FileSum]  # the files of tokenizer/
    checksum: str
    resolved: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None
    imported: dict[str, Any] | None = None
    origin: Origin | None = None
    changes: list[Change] | None = None


def describe(
    path: Path, config: Config, framework: str, preset: str, fingerprint: str, vocab_size: int, **more: Any
) -> dict[str, Any]:
    """Makes the fields of config.json of the run in `path`, whose tokenizer is written; `more` are further fields."""
    return {
        "framework": framework,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "fingerprint": config_fingerprint(config, framework),
        "data": {"fingerprint": fingerprint, "vocab_size": vocab_size},
        "versions": versions(),
        "commit": commit(),
        "tokenizer": file_sums(path / "tokenizer"),
        **more,
    }


def write_description(path: Path, description: dict[str, Any]) -> Identity:
    """Writes config.json into the folder of a run, and returns the run's identity."""
    write_sealed(path / "config.json", description)
    return Identity(description["fingerprint"], description["data"]["fingerprint"])


def add_to_description(path: Path, **fields: Any) -> None:
    """Sets fields of an existing config.json."""
    saved = _read(path / "config.json")
    values = {name: getattr(saved, name) for name in saved.__struct_fields__}
    write_sealed(path / "config.json", {n: v for n, v in (values | fields).items() if v is not None or n == "commit"})


def read_description(folder: Path) -> dict[str, Any]:
    """Reads what a run's config.json says. If it is damaged, the copy in the newest whole checkpoint is read.

    Returns:
      "config" (a Config), "framework", "preset", "vocab_size", "fingerprint" (of the data), "identity", "tokenizer" (a
      table of files); and "imported", "resolved", "tokens", "origin" and "changes", which are None if config.json does
      not have them.

    Raises:
      UserError: there is no config.json, or it is broken and there is no copy.
    """
    path = folder / "config.json"
    copy = None
    try:
        saved = _read(path)
    except Broken as error:
        copy = _copy(folder)
        if copy is None and not path.exists():
            raise UserError(f"{folder}: not a run: it has no config.json{other_runs(folder)}") from error
        if copy is None:
            raise
        saved = _read(copy)
        say_once(f"{folder}: {error.short}; its copy in {copy.parent.name} is used")
    try:
        config = from_config_dict(saved.config)
    except UserError as error:
        raise UserError(f"{copy or path}: {error}") from error
    names = ("framework", "preset", "imported", "resolved", "tokens", "origin", "changes")
    fields = {name: getattr(saved, name) for name in names}
    facts = {"vocab_size": saved.data.vocab_size, "fingerprint": saved.data.fingerprint, "tokenizer": saved.tokenizer}
    identity = Identity(saved.fingerprint, saved.data.fingerprint)
    return fields | facts | {"config": config, "identity": identity}


def repair_description(folder: Path) -> None:
    """Puts the copy of a damaged or missing config.json back. Does nothing if there is no copy."""
    path = folder / "config.json"
    try:
        _read(path)
    except Broken as error:
        copy = _copy(folder)
        if copy is not None:
            say(f"{folder}: {error.short}; its copy in {copy.parent.name} is put back")
            if path.is_dir():
                path.rename(unused(folder / "damaged-config.json"))
            shutil.copyfile(copy, folder / "config.json.tmp")
            (folder / "config.json.tmp").replace(path)


def read_own(folder: Path) -> Description:
    """Reads config.json itself, not a copy. Raises `json_files.Broken` if it is missing or damaged."""
    return _read(folder / "config.json")


def _read(path: Path) -> Description:
    return read_sealed(path, Description, "restore the file, or train anew")


def _copy(folder: Path) -> Path | None:
    """Finds the copy of config.json in the newest whole checkpoint that has one."""
    for checkpoint in reversed(list_entries(folder / "checkpoints")):
        copy = checkpoint / "config.json"
        if copy.is_file() and not damage(checkpoint):
            return copy
    return None


def other_runs(folder: Path) -> str:
    """Makes the end of an error about a folder that is not a run: names a run like it, or some beside it."""
    runs = [path.parent.name for path in folder.parent.glob("*/config.json")]
    if not runs:
        return f"; there are no runs in {folder.parent}"
    return nearest(folder.name, runs) or f"; runs in {folder.parent}: {', '.join(sorted(runs)[:5])}"
