"""Finds each variant's own settings, such as its learning rate, before the variants are compared.

A comparison at one learning rate favours the variant that likes it. Optuna proposes values; its journal, a file in the
study's folder, keeps every trial, so that several processes, or machines that share the folder, work on one search.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_core.config.fields import base_type, field_table, flatten, unknown_field
from slm_core.errors import UserError
from slm_core.studies.collect import read_run
from slm_core.studies.results import Trial
from slm_core.studies.study import Cell, Study
from slm_core.studies.variants import Variant, variant_config

FOLDER = "tuning"
"""Folder of the trials' runs and of the journal, in the study's folder."""

SEED = 1000
"""The trials' seed lies so far above the study's, so that no compared run has been selected for its loss."""


@dataclass(frozen=True)
class Range:
    """The values that a field is searched in.

    Args:
      field: dotted name.
      low, high: both included.
      whole: whether values are whole numbers.
    """

    field: str
    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        """Whether values are drawn evenly on a logarithmic scale: if they span a factor of 10 or more."""
        return self.low > 0 and self.high / self.low >= 10


def parse_range(text: str) -> Range:
    """Parses "FIELD=LOW..HIGH", the text of --tune.

    Raises:
      UserError: the text is not of this form, or the field is not a number.
    """
    name, _, values = text.partition("=")
    name = name.strip().removeprefix("config.")
    low, dots, high = values.partition("..")
    if not dots:
        raise UserError(f"--tune={text}: write --tune=FIELD=LOW..HIGH, as in optim.lr=1e-4..1e-2")
    if name not in field_table():
        raise unknown_field(name)
    kind = base_type(field_table()[name].type)
    if kind not in (int, float):
        raise UserError(f"--tune={text}: {name} is not a number; compare its values with --vary")
    try:
        bounds = kind(low), kind(high)
    except ValueError:
        raise UserError(f"--tune={text}: {low!r} and {high!r} must be numbers that {name} can have") from None
    if not bounds[0] < bounds[1] or not all(map(math.isfinite, bounds)):
        raise UserError(f"--tune={text}: {low} must be less than {high}")
    return Range(name, *bounds, whole=kind is int)


def check_ranges(study: Study, ranges: Sequence[Range]) -> None:
    """Raises UserError if a variant cannot have the ends of a range, or sets the field itself."""
    for variant in study.variants:
        for each in ranges:
            if each.field in variant.overrides:
                raise UserError(f"--tune={each.field}: variant {variant.name!r} sets it; leave one out")
            for value in (each.low, each.high):
                what = f"--tune={each.field}: variant {variant.name!r}"
                variant_config(study.config(variant), {each.field: value}, what)


def tuned(
    study: Study, ranges: Sequence[Range], trials: int, run: Callable[[Sequence[Cell]], bool]
) -> tuple[Study, bool]:
    """Searches each variant's settings, and sets the study's adjustments to the best.

    Every variant gets the same number of trials. The first one has the variant's own value, if the range holds it. The
    others come from optuna's tree-structured Parzen estimator (Bergstra 2011). One round has a trial per variant.

    Args:
      trials: per variant.
      run: does runs in the folder of the trials; returns False if the user stopped them.

    Returns:
      The study, and whether the search is complete.
    """
    searches = {variant.name: _search(study, variant, ranges) for variant in study.variants}
    while True:
        asked = {
            variant.name: ask(searches[variant.name], study.config(variant), ranges, trials)
            for variant in study.variants
        }
        cells = {
            (variant.name, trial.number): _cell(study, variant, trial)
            for variant in study.variants
            for trial in asked[variant.name]
        }
        if not cells:
            return _adjusted(study, searches), True
        if not run(list(cells.values())):
            return study, False
        for (name, number), cell in cells.items():
            _tell(study.folder, searches[name], number, cell)


def read_trials(study: Study) -> list[Trial]:
    """Reads the trials of a study so far; [] if there was no search."""
    if not (study.folder / FOLDER / "journal.log").is_file():
        return []
    found = []
    for variant in study.variants:
        for trial in _search(study, variant, ()).trials:
            loss = trial.value if trial.value is not None and math.isfinite(trial.value) else None
            found.append(Trial(variant.name, dict(trial.params), loss))
    return found


def ask(search: Any, config: Any, ranges: Sequence[Range], trials: int) -> list[Any]:
    """Returns the trials to do next: those that a stopped process left, or else a new one if some are left."""
    from optuna.trial import TrialState

    left = [trial for trial in search.trials if trial.state == TrialState.RUNNING]
    if left:
        return left
    if len(search.trials) >= trials:
        return []
    if not search.trials:
        own = {each.field: flatten(config)[each.field] for each in ranges}
        if all(each.low <= own[each.field] <= each.high for each in ranges):
            search.enqueue_trial(own)
    trial = search.ask()
    for each in ranges:
        if each.whole:
            trial.suggest_int(each.field, int(each.low), int(each.high), log=each.log)
        else:
            trial.suggest_float(each.field, each.low, each.high, log=each.log)
    return [search.trials[trial.number]]


def _search(study: Study, variant: Variant, ranges: Sequence[Range]) -> Any:
    """Opens a variant's search in the journal."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (study.folder / FOLDER).mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(study.folder / FOLDER / "journal.log")))
    names = {search.study_name: search._study_id for search in storage.get_all_studies()}
    begun = storage.get_n_trials(names[variant.name]) if variant.name in names else 0
    sampler = optuna.samplers.TPESampler(seed=begun, n_startup_trials=4)
    return optuna.create_study(storage=storage, study_name=variant.name, sampler=sampler, load_if_exists=True)


def _cell(study: Study, variant: Variant, trial: Any) -> Cell:
    name = f"{variant.slug}-trial{trial.number}"
    seed, steps = study.base.seed + SEED, study.config(variant).train.steps
    placed = study.placed(variant, seed, study.folder / FOLDER, name)
    overrides = study.settings(variant) | dict(trial.params) | placed
    return Cell(variant.name, study.frameworks[0], seed, name, overrides, steps)


def _tell(folder: Path, search: Any, number: int, cell: Cell) -> None:
    """Records a trial's loss; one that failed or diverged counts as infinitely bad."""
    loss = read_run(folder / FOLDER / cell.name, cell.variant, cell.framework, cell.seed).loss
    search.tell(number, loss if math.isfinite(loss) else math.inf, skip_if_finished=True)


def _adjusted(study: Study, searches: dict[str, Any]) -> Study:
    adjusted, notes = dict(study.adjusted), dict(study.notes)
    for name, search in searches.items():
        if not math.isfinite(search.best_value):
            raise UserError(f"variant {name!r}: no trial of --tune finished; see the logs in {study.folder / FOLDER}")
        values = {field: float(f"{v:.4g}") if isinstance(v, float) else v for field, v in search.best_params.items()}
        adjusted[name] = adjusted.get(name, {}) | values
        shown = ", ".join(f"{field}={value:g}" for field, value in values.items())
        line = f"{shown}: best of {len(search.trials)} trials in {study.frameworks[0]}, loss {search.best_value:.4f}"
        notes[name] = (*notes.get(name, ()), line)
    return dataclasses.replace(study, adjusted=adjusted, notes=notes)
