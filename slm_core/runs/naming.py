"""Names a run: by its config, and by the first name that is free."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from slm_core.config import Config
from slm_core.config.fields import flatten
from slm_core.errors import UserError

MAY_DIFFER = (
    "run.", "data.dir", "train.checkpoint_every", "train.keep_", "train.sample_", "train.log_details_every",
    "memory.limit_gb",
)  # fmt: skip
"""Prefixes of the fields that do not shape a run: they alter neither the weights nor a line of metrics.jsonl."""


def run_name(config: Config, framework: str, preset: str, overrides: Iterable[str] = ()) -> str:
    """Returns the name of the run that a command trains: of the branch, the given one, or the automatic one."""
    return config.run.branch or config.run.name or automatic_name(config, framework, preset, overrides)


def automatic_name(config: Config, framework: str, preset: str, overrides: Iterable[str] = ()) -> str:
    """Makes "<preset>-<framework>", and "-<6 hex digits>" of the overrides that shape the run, if there are any.

    Args:
      overrides: dotted names of the fields set on the command line. Those of MAY_DIFFER do not count.
    """
    values = flatten(config)
    shaping = {name: values[name] for name in sorted(overrides) if not name.startswith(MAY_DIFFER)}
    name = f"{preset}-{framework}"
    if shaping:
        name += "-" + hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:6]
    return name


def check_name(name: str) -> None:
    """Raises UserError unless `name` is a plain name of a folder."""
    if name != Path(name).name or name.startswith("."):
        raise UserError(f"run.name={name!r}: must be a plain name of a folder; its parent is run.dir")


def make_folder(root: Path, name: str, resume: bool) -> Path:
    """Makes the folder of a run, or finds it.

    Args:
      resume: an existing folder is taken; otherwise the name gets the next free "-2", "-3", ...

    Raises:
      UserError: the folder cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1_000_000):
            path = root / (name if number == 1 else f"{name}-{number}")
            if resume:
                path.mkdir(exist_ok=True)
                return path
            try:
                path.mkdir()  # not "is it free?" first: two processes may ask at once
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise UserError(f"run.dir={str(root)!r}: cannot make {error.filename} ({error.strerror})") from error
    raise UserError(f"run.name={name!r}: a million runs have this name; choose another")
