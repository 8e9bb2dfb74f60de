"""Makes a study's results of runs that are already there, whoever trained them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import flatten
from slm_core.config.values import value_text
from slm_core.errors import UserError
from slm_core.runs.description import read_description
from slm_core.runs.provenance import versions
from slm_core.studies.collect import read_run
from slm_core.studies.machine import processor
from slm_core.studies.results import StudyResult, VariantFacts
from slm_core.studies.variants import shown

_OF_A_RUN = ("seed", "run.", "data.dir", "memory.limit_gb")
"""How the fields begin that may differ between two runs of one variant."""


def results_of_runs(
    folders: Sequence[Path], name: str, question: str, command: str, parameters: Callable[[Config], int]
) -> StudyResult:
    """Reads finished or unfinished runs; runs whose configs differ in the seed alone are one variant.

    Args:
      folders: the runs; the first one's variant is the baseline.
      parameters: counts those of a config's model.

    Raises:
      UserError: a folder is not a run, two runs are the same, or there is only one variant.
    """
    descriptions = {folder: read_description(folder) for folder in folders}
    groups: list[tuple[dict[str, Any], list[Path]]] = []
    for folder, description in descriptions.items():
        fields = _shaping(description["config"])
        group = next((members for values, members in groups if values == fields), None)
        if group is None:
            groups.append((fields, [folder]))
        else:
            group.append(folder)
    if len(groups) < 2:
        raise UserError(f"--runs: {len(folders)} runs with one config, apart from the seed: give runs that differ")
    baseline, names = groups[0][0], _names([fields for fields, _ in groups])
    cells, facts = [], []
    for variant, (fields, members) in zip(names, groups, strict=True):
        config = descriptions[members[0]]["config"]
        differing = {field: value for field, value in fields.items() if value != baseline.get(field)}
        tokens = config.train.batch_size * config.data.seq_len
        facts.append(VariantFacts(variant, differing, {}, (), parameters(config), None, config.train.steps, tokens))
        cells += [
            read_run(folder, variant, descriptions[folder]["framework"], descriptions[folder]["config"].seed)
            for folder in members
        ]
    pairs = [(cell.variant, cell.framework, cell.seed) for cell in cells]
    for cell, pair in zip(cells, pairs, strict=True):
        if pairs.count(pair) > 1:
            raise UserError(f"--runs: {cell.folder} is not the only run of its config, twin and seed; leave one out")
    first = descriptions[folders[0]]["config"]
    return StudyResult(
        name=name,
        question=question,
        command=command,
        preset=str(folders[0]),
        fields=flatten(first),
        match="steps",
        variants=tuple(facts),
        frameworks=tuple(dict.fromkeys(cell.framework for cell in cells)),
        seeds=tuple(sorted({cell.seed for cell in cells})),
        cells=tuple(cells),
        trials=(),
        versions=versions(),
        machine=processor(),
    )


def _shaping(config: Config) -> dict[str, Any]:
    return {name: value for name, value in flatten(config).items() if not name.startswith(_OF_A_RUN)}


def _names(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Names each variant by the fields in which variants differ."""
    varied = [name for name in groups[0] if len({value_text(fields[name]) for fields in groups}) > 1]
    return [", ".join(shown(name, fields[name]) for name in varied) for fields in groups]
