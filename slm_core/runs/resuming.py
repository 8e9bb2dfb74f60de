"""Refuses to train in a folder that has anything other than this run."""

from pathlib import Path

from slm_core.config import Config
from slm_core.config.fields import flatten
from slm_core.errors import UserError
from slm_core.runs.description import BEFORE_CONFIG, read_description
from slm_core.runs.naming import MAY_DIFFER

_ANEW = "start a new run with --config.run.resume=False, or another --config.run.name"


def refuse_foreign(path: Path) -> None:
    """Raises UserError if the folder is not a run, and not an empty one either."""
    if (path / "config.json").exists():
        return
    foreign = sorted({entry.name for entry in path.iterdir()} - BEFORE_CONFIG)
    if foreign:
        raise UserError(
            f"run.name={path.name!r}: {path} is not a run (it holds {foreign[0]} and no config.json); choose another"
        )


def refuse_different(path: Path, config: Config, framework: str, fingerprint: str) -> None:
    """Raises UserError if the run in the folder is imported, or has another twin, config or text."""
    saved = read_description(path)
    if saved["imported"] is not None:
        raise UserError(
            f"run.name={path.name!r}: {path} is an imported model, which training never writes into; to start from it:"
            f" --config=configs/finetune.py:{path}, and another run.name"
        )
    if saved["framework"] != framework:
        raise UserError(
            f"run.name={path.name!r}: {path} was trained by the {saved['framework']} twin (now {framework}); "
            "choose another run.name"
        )
    _refuse_other_config(path, saved["config"], config)
    if saved["fingerprint"] != fingerprint:
        raise UserError(
            f"data.source={config.data.source!r}: the text changed since {path} was begun (fingerprint "
            f"{saved['fingerprint']}, now {fingerprint}); put the old text back, or {_ANEW}"
        )


def _refuse_other_config(path: Path, begun: Config, config: Config) -> None:
    before, now = flatten(begun), flatten(config)
    differing = [name for name in now if before[name] != now[name] and not name.startswith(MAY_DIFFER)]
    if differing:
        shown = ", ".join(f"{name}={before[name]!r} (now {now[name]!r})" for name in differing[:4])
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise UserError(f"{differing[0]}: {path} was begun with {shown}{more}; keep its values, or {_ANEW}")
