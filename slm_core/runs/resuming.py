"""Says which settings a checkpoint may go on with: the same run, or a new one that branches off.

| a field | the same run | a branch |
|---|---|---|
| of SAFE | may change | may change |
| of BRANCHING, and not tied to the state | refused | may change |
| any other | refused | refused |
"""

from collections.abc import Callable
from pathlib import Path

from slm_core.config import Config
from slm_core.config.fields import flatten
from slm_core.errors import UserError
from slm_core.model.compare import differences
from slm_core.runs.description import BEFORE_CONFIG, Changes, Origin, read_description
from slm_core.runs.naming import MAY_DIFFER

SAFE = (
    *MAY_DIFFER, "memory.", "train.steps", "train.minutes", "train.log_every", "train.eval_every", "train.eval_batches",
    "train.micro_batch_size",
)  # fmt: skip
"""Prefixes of the fields that may change while a run goes on. They change its weights by rounding alone; but a new
train.steps also changes the learning rates of the steps to come."""

BRANCHING = (
    "seed", "data.", "optim.", "train.", "precision.", "model.dropout", "model.z_loss", "model.attention.kernel",
    "model.mixer.chunk", "model.mlp.balance_loss", "model.mlp.router_z_loss",
)  # fmt: skip
"""Prefixes of the fields that a branch may change as well: the saved state means the same under other values."""


def _context_is_fixed(begun: Config, config: Config) -> bool:
    learned = begun.model.position.kind == "learned"
    return learned or bool(differences(begun, config) or differences(config, begun))


_AVERAGES = "the averages of optim.kind=schedule_free are computed with it"
_BLOCKS = "the saved moments are cut into such blocks"
_TIED: dict[str, tuple[Callable[[Config, Config], bool], str]] = {
    "optim.kind": (lambda begun, config: True, "the saved state is that of its optimizer"),
    "optim.betas": (lambda begun, config: begun.optim.kind == "schedule_free", _AVERAGES),
    "optim.quantised_block": (lambda begun, config: True, _BLOCKS),
    "optim.quantised_from": (lambda begun, config: True, _BLOCKS),
    "data.seq_len": (_context_is_fixed, "the model would be another function of the same weights"),
}
"""{field: (whether the saved state is tied to its value, why)}."""


def refuse_foreign(path: Path) -> None:
    """Raises UserError if the folder is not a run, and not an empty one either."""
    if (path / "config.json").exists():
        return
    foreign = sorted({entry.name for entry in path.iterdir()} - BEFORE_CONFIG)
    if foreign:
        raise UserError(
            f"run.name={path.name!r}: {path} is not a run (it holds {foreign[0]} and no config.json); choose another"
        )


def changes(begun: Config, config: Config) -> Changes:
    """Lists the fields that have another value than when a run was begun. Those of the machine do not count."""
    before, now = flatten(begun), flatten(config)
    return {
        name: [before[name], now[name]] for name in now if before[name] != now[name] and not name.startswith("run.")
    }


def allowed_changes(path: Path, config: Config, framework: str, fingerprint: str) -> Changes:
    """Lists the settings that change while the run in a folder goes on.

    Raises:
      UserError: the run is imported, or of another twin, config or text.
    """
    saved = read_description(path)
    if saved["imported"] is not None:
        raise UserError(
            f"run.name={path.name!r}: {path} is an imported model, which training never writes into; to start from it:"
            f" --config=configs/finetune.py:{path}, and another run.name"
        )
    own = config.run.resume_from and Path(config.run.resume_from).resolve() == path.resolve()
    if saved["framework"] != framework and not own:
        raise UserError(
            f"run.name={path.name!r}: {path} was trained by the {saved['framework']} twin (now {framework}); choose"
            f" another run.name, or let this twin go on with it: --config.run.resume_from={path}"
        )
    if not own:
        _refuse_other_origin(path, config, saved["origin"])
    changed = changes(saved["config"], config)
    refuse_unsafe(path, changed, "start a new run with --config.run.resume=False, or another --config.run.name")
    refuse_other_text(path, config, saved["fingerprint"], fingerprint)
    return changed


def _refuse_other_origin(path: Path, config: Config, origin: Origin | None) -> None:
    """Refuses to go on with a run that was started from another run than the one that the command names."""
    run = config.run
    named = run.resume_from or (str(Path(run.dir, run.name)) if run.branch else "")
    if named and (origin is None or Path(origin.run).resolve() != Path(named).resolve()):
        field = f"run.branch={run.branch}" if run.branch else f"run.resume_from={named}"
        started = f"was started from {origin.run}" if origin else "was not started from another run"
        raise UserError(
            f"{field}: {path} is there already, and {started}; choose another name, or give run.name={path.name} alone"
            " to go on with it"
        )


def refuse_unsafe(path: Path, changed: Changes, anew: str) -> None:
    """Raises UserError if a field changed that the same run cannot go on with; `anew` says how to start another."""
    unsafe = {name: values for name, values in changed.items() if not name.startswith(SAFE)}
    if unsafe:
        raise UserError(
            f"{next(iter(unsafe))}: {path} was begun with {_shown(unsafe)}; keep its values, or {anew}, or branch off"
            " with other values: --config.run.branch=NAME (docs/resuming.md says which)"
        )


def refuse_fixed(path: Path, begun: Config, config: Config) -> None:
    """Raises UserError if a field changed that a branch of a run cannot have another value of."""
    changed = changes(begun, config)
    fixed = {name: values for name, values in changed.items() if _why_fixed(name, begun, config)}
    if fixed:
        first = next(iter(fixed))
        raise UserError(
            f"{first}: {path} was begun with {_shown(fixed)}, and a branch keeps it, because"
            f" {_why_fixed(first, begun, config)}; keep its value, or start from its weights: finetune.base={path}"
        )


def _why_fixed(name: str, begun: Config, config: Config) -> str:
    """Returns why a branch cannot change a field; "" if it can."""
    if name in _TIED:
        applies, why = _TIED[name]
        return why if applies(begun, config) else ""
    if name.startswith((*SAFE, *BRANCHING)):
        return ""
    return "the saved parameters are those of its adapters" if name.startswith("finetune.") else (
        "the saved parameters are those of its model"
    )  # fmt: skip


def refuse_fewer_steps(path: Path, config: Config, step: int, branches: bool = False) -> None:
    """Raises UserError if a run is to end before the step that it has reached, or a branch has nothing to train."""
    if config.train.steps < step + branches:
        least = "more than that" if branches else "at least that, or start a new run"
        raise UserError(f"train.steps={config.train.steps}: {path} has done {step} already; give {least}")


def refuse_other_text(path: Path, config: Config, before: str, now: str) -> None:
    """Raises UserError if the fingerprint of the text is another than when the run was begun."""
    if before != now:
        raise UserError(
            f"data.source={config.data.source!r}: the text changed since {path} was begun (fingerprint {before}, now"
            f" {now}); put the old text back, or start a new run with --config.run.resume=False, or another"
            " --config.run.name, or branch off with --config.run.branch=NAME"
        )


def _shown(changed: Changes) -> str:
    shown = ", ".join(f"{name}={before!r} (now {now!r})" for name, (before, now) in list(changed.items())[:4])
    return shown + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
