"""A study: its variants, twins and seeds; and the folder `models/<study>/` that holds its runs."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slm_core.config import Config, presets
from slm_core.config.fields import flatten
from slm_core.config.recommended import unset_companions
from slm_core.config.values import value_text
from slm_core.errors import UserError
from slm_core.json_files import Count, Schema, read_sealed, write_sealed
from slm_core.studies.variants import Variant, refuse_repeated, variant_config

FILE = "study.json"
MATCHES = {
    "steps": "All variants train for the same number of updates.",
    "tokens": "All variants train on the same number of tokens.",
    "parameters": "All variants have the same number of parameters, within 1%.",
    "flops": "All variants train with the same number of floating-point operations.",
    "time": "All variants train for the same time.",
}
"""{match: a sentence for the report, which says what the variants of a study have in common}."""

_IDENTITY = ("preset", "overrides", "variants", "match", "tune", "trials")
"""What a study shares with the one that its folder holds. More seeds or another twin may join later."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
      variant: the variant's name.
      framework: "torch" or "flax".
      seed: the run's seed.
      name: the run's folder in the study's folder.
      overrides: {dotted field: value}, all that the command line of the run sets.
      steps: updates of the run.
    """

    variant: str
    framework: str
    seed: int
    name: str
    overrides: dict[str, Any]
    steps: int


@dataclass(frozen=True)
class Study:
    """What a study compares. It is written to study.json before its first run, so that another process can go on.

    Args:
      folder: the folder of the study.
      preset: the base preset as --config names it.
      overrides: {dotted field: value} over the preset, the same for every variant.
      variants: the first is the baseline.
      frameworks: "torch", "flax" or both.
      seeds: how many; the seeds are the config's own and those that follow it.
      match: a key of MATCHES.
      threads: CPU threads per run, if no config sets run.threads.
      question: what the study asks, in a sentence.
      command: the command line.
      tune: the texts of --tune: fields whose best value is searched for each variant.
      trials: of that search, per variant.
      tuned: whether that search is complete.
      adjusted: {variant's name: {dotted field: value}} that matching, tuning and recommended settings changed.
      notes: {variant's name: one line for each of these}.
      facts: {variant's name: {"parameters": int, "flops": float or None}}.
    """

    folder: Path
    preset: str
    overrides: dict[str, Any]
    variants: tuple[Variant, ...]
    frameworks: tuple[str, ...]
    seeds: int
    match: str
    threads: int
    question: str
    command: str
    tune: tuple[str, ...] = ()
    trials: int = 0
    tuned: bool = False
    adjusted: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def preset_config(self) -> Config:
        """The base preset, without overrides."""
        return presets.load(self.preset)[0]

    @functools.cached_property
    def base(self) -> Config:
        """The config that every variant starts from."""
        return variant_config(self.preset_config, self.overrides, f"--config={self.preset}")

    def settings(self, variant: Variant) -> dict[str, Any]:
        """Returns {dotted field: value} that a variant sets over the preset."""
        return self.overrides | dict(variant.overrides) | self.adjusted.get(variant.name, {})

    def config(self, variant: Variant) -> Config:
        """Returns a variant's config, without what differs between its runs."""
        return variant_config(self.preset_config, self.settings(variant), f"variant {variant.name!r}")

    def cells(self) -> list[Cell]:
        """Returns the runs: seed by seed, so that an interrupted study has whole pairs."""
        steps = {variant.name: self.config(variant).train.steps for variant in self.variants}
        return [
            self.cell(variant, framework, self.base.seed + seed, steps[variant.name])
            for seed in range(self.seeds)
            for variant in self.variants
            for framework in self.frameworks
        ]

    def cell(self, variant: Variant, framework: str, seed: int, steps: int) -> Cell:
        """Returns one run of a variant."""
        name = f"{variant.slug}-{framework}-seed{seed}"
        settings = self.settings(variant) | self.placed(variant, seed, self.folder, name)
        return Cell(variant.name, framework, seed, name, settings, steps)

    def placed(self, variant: Variant, seed: int, folder: Path, name: str) -> dict[str, Any]:
        """Returns what the study sets for one run: seed, place and threads."""
        threads = self.config(variant).run.threads or self.threads
        return {"seed": seed, "run.dir": str(folder), "run.name": name, "run.threads": threads}

    def check(self) -> None:
        """Raises UserError if a variant starts from a checkpoint, has no valid config, or has that of another."""
        for variant in self.variants:
            _refuse_checkpoint(self.config(variant))
            _refuse_minutes(self.config(variant))
            _refuse_places(f"variant {variant.name!r}", variant.overrides, PLACES)
        _refuse_places("the study", self.overrides, ("run.dir", "run.name"))
        configs = [flatten(self.config(variant)) for variant in self.variants]
        for index, config in enumerate(configs):
            if config in configs[:index]:
                first, second = self.variants[configs.index(config)], self.variants[index]
                raise UserError(f"variants {first.name!r} and {second.name!r} have the same config: change one")
        refuse_repeated("the name", [variant.name for variant in self.variants])


PLACES = {
    "seed": "--seeds, or the study's own seed", "run.dir": "--config.run.dir", "run.name": "--name",
}  # fmt: skip
"""{field that the study sets for each run: what to set instead}."""


def _refuse_places(what: str, overrides: Mapping[str, Any], fields: Collection[str]) -> None:
    for field in fields:
        if field in overrides:
            raise UserError(f"{what} sets {field}, which is set for each run: leave it out, and use {PLACES[field]}")


def _refuse_checkpoint(config: Config) -> None:
    """Refuses to start the runs of a study from a run's checkpoint: seeds would then not differ in their weights."""
    for field in ("resume_from", "branch"):
        if value := getattr(config.run, field):
            raise UserError(
                f"run.{field}={value}: every run of a study would start from that one checkpoint, whatever its seed;"
                " leave it unset, or start from weights with finetune.base"
            )


def _refuse_minutes(config: Config) -> None:
    """Refuses to let the clock decide how long each run is: pairs would differ by more than their variant."""
    if config.train.minutes:
        raise UserError(
            f"train.minutes={config.train.minutes:g}: each run of a study would choose its own train.steps; set"
            " train.steps, and --match=time for variants of equal time"
        )


def with_companions(study: Study) -> Study:
    """Gives each variant the settings that the papers of its kinds ask for, unless the user set them."""
    adjusted, notes = dict(study.adjusted), dict(study.notes)
    for variant in study.variants:
        for kind, values, source in unset_companions(study.config(variant), study.settings(variant)):
            shown = ", ".join(f"{name}={value_text(value)}" for name, value in values.items())
            adjusted[variant.name] = adjusted.get(variant.name, {}) | values
            notes[variant.name] = (*notes.get(variant.name, ()), f"{shown} for {kind}: {source}")
    return dataclasses.replace(study, adjusted=adjusted, notes=notes)


def arguments(cell: Cell, preset: str) -> list[str]:
    """Returns the words of the command line that trains a cell, behind the script's name."""
    return [f"--config={preset}", *(f"--config.{name}={value_text(v)}" for name, v in cell.overrides.items())]


def resumed(study: Study) -> Study:
    """Takes over what the study in the folder, if there is one, has decided for its variants.

    Raises:
      UserError: the folder holds another study, or something else.
    """
    folder = study.folder
    if not (folder / FILE).exists():
        if folder.exists() and any(entry.name != ".claims" for entry in folder.iterdir()):
            raise UserError(f"{folder}: it is not empty and holds no study; choose another --name")
        return study
    before = read_study(folder)
    differing = [name for name in _IDENTITY if getattr(before, name) != getattr(study, name)]
    if differing:
        raise UserError(f"{folder}: it holds a study that differs in {', '.join(differing)}; choose another --name")
    decided = {name: getattr(before, name) for name in ("adjusted", "notes", "facts", "tuned")}
    return dataclasses.replace(study, **decided)


def write_study(study: Study) -> None:
    """Writes study.json, and makes its folder."""
    study.folder.mkdir(parents=True, exist_ok=True)
    variants = [{"name": variant.name, "overrides": dict(variant.overrides)} for variant in study.variants]
    values = dataclasses.asdict(study) | {"folder": study.folder.name, "variants": variants}
    write_sealed(study.folder / FILE, values)


class _File(Schema):
    """The fields of study.json: those of `Study`, and a checksum."""

    folder: str
    preset: str
    overrides: dict[str, Any]
    variants: list[Variant]
    frameworks: tuple[Literal["torch", "flax"], ...]
    seeds: Count
    match: str
    threads: Count
    question: str
    command: str
    tune: tuple[str, ...]
    trials: Count
    tuned: bool
    adjusted: dict[str, dict[str, Any]]
    notes: dict[str, tuple[str, ...]]
    facts: dict[str, dict[str, int | float | None]]
    checksum: str


def read_study(folder: Path) -> Study:
    """Reads study.json. Raises UserError if there is none, or it is broken."""
    if not (folder / FILE).exists():
        raise UserError(f"{folder}: it holds no study ({FILE} is missing)")
    saved = read_sealed(folder / FILE, _File, "delete it and run the study's command again")
    values = {name: getattr(saved, name) for name in saved.__struct_fields__ if name != "checksum"}
    values |= {
        "folder": folder,
        "overrides": _restored(saved.overrides),
        "variants": tuple(Variant(each.name, _restored(dict(each.overrides))) for each in saved.variants),
        "adjusted": {name: _restored(fields) for name, fields in saved.adjusted.items()},
    }
    return Study(**values)


def _restored(overrides: dict[str, Any]) -> dict[str, Any]:
    """Turns the lists that JSON made of tuples back."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
