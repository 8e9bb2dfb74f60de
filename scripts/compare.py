"""Compares variants of a config by paired runs, and writes a page that answers which is better."""

import dataclasses
import functools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError
from slm_core.logging import say
from slm_core.studies.study import MATCHES
from slm_core.training.display.plain import duration

if TYPE_CHECKING:
    from slm_core.planner import Twin
    from slm_core.studies.matching import Costs
    from slm_core.studies.results import StudyResult
    from slm_core.studies.study import Cell, Study
    from slm_core.studies.variants import Variant

ROOT = Path(__file__).resolve().parents[1]
TWINS = ("torch,flax", "flax,torch", "torch", "flax")

DESCRIPTION = """Compares variants of a config. Each variant is trained with several seeds, in one or both twins. Runs
of one seed share initial values, the order of batches and the validation text, so that their difference shows the
variant. Writes report.html and report.md into the study's folder, models/NAME. The same command continues an
interrupted study."""

OPEN = {"question": "", "seeds": 5, "frameworks": "torch,flax", "match": "steps", "trials": 12}
"""{flag that a study file may set, too: its value if neither does}."""

FLAGS = [
    Flag("vary", str, (), "FIELD=VALUE,VALUE: values to compare; several --vary: all combinations", repeated=True),
    Flag("variant", str, (), "'NAME: FIELD=VALUE FIELD=VALUE': a variant; the first is the baseline", repeated=True),
    Flag("study", str, "", "file that names the variants and the rest, such as configs/studies/attention.py"),
    Flag("name", str, "", "the study's name; empty: made from the preset and the variants"),
    Flag("question", str, None, "what the study asks, in a sentence; the report begins with it"),
    Flag("seeds", int, None, "runs of each variant in each twin, each with a seed of its own; 5 if nothing says more"),
    Flag("frameworks", str, None, "twins to train with; both if nothing says more", choices=TWINS),
    Flag("match", str, None, "what the variants have in common; steps if nothing says more", choices=tuple(MATCHES)),
    Flag("recommended", bool, True, "give each kind the settings that its paper asks for, unless they are set"),
    Flag("tune", str, (), "FIELD=LOW..HIGH: search each variant's own best value first", repeated=True),
    Flag("trials", int, None, "trials of that search, per variant; 12 if nothing says more"),
    Flag("jobs", int, 0, "runs at a time; 0: one per CPU core, on a GPU one"),
    Flag("dry-run", bool, False, "show the runs, their parameters, memory and time, and train none"),
    Flag("report-only", bool, False, "train nothing; write the report of the runs that are there"),
    Flag("runs", str, (), "folder of a run: train nothing, and compare these runs", repeated=True),
]


def run(invocation: Invocation) -> None:
    from slm_core.data import prepare
    from slm_core.studies import forecast
    from slm_core.studies.matching import matched
    from slm_core.studies.runner import training_commands
    from slm_core.studies.study import read_study, resumed, write_study

    commands, flags, jobs = training_commands(ROOT, sys.executable), invocation.flags, jobs_of(invocation)
    if flags["runs"]:
        compare_runs(invocation)
        return
    study = plan(invocation)
    if flags["report_only"]:
        report(read_study(study.folder))
        return
    study = resumed(study)
    prepare(study.base.data)
    if not study.facts:
        study = matched(study, costs(study.frameworks[0]), say)
    made = forecast.forecasts(study, twins(), measured_speeds(study) if flags["dry_run"] else {})
    if flags["dry_run"]:
        print(forecast.table(study, made))
        seconds = forecast.total_seconds(study, made, jobs)
        print(f"\n{len(study.cells())} runs, {jobs} at a time: about {duration(seconds or 0)}")
        return
    forecast.refuse_too_large(study, made)
    write_study(study)
    study = tune(study, commands, jobs)
    if not train(study, study.cells(), study.folder, commands, jobs):
        raise SystemExit(130)
    report(study)


def plan(invocation: Invocation) -> "Study":
    """Makes the study that the command line, or the file that it names, asks for."""
    from slm_core.runs.naming import check_name
    from slm_core.studies.file import load_study
    from slm_core.studies.study import Study, with_companions
    from slm_core.studies.tuning import check_ranges, parse_range
    from slm_core.studies.variants import Variant, make_variants

    flags, file = invocation.flags, {}
    if flags["study"]:
        if flags["vary"] or flags["variant"]:
            raise UserError("--study with --vary or --variant: the file names the variants; leave one out")
        file = load_study(flags["study"])
    settings = {
        name: flags[name] if flags[name] is not None else file.get(name, default) for name, default in OPEN.items()
    }
    if settings["seeds"] < 1 or settings["trials"] < 1:
        raise UserError(f"--seeds={settings['seeds']} and --trials={settings['trials']} must be at least 1")
    named = tuple(Variant(name, fields) for name, fields in file.get("variants", {}).items())
    variants = named or make_variants(flags["vary"], flags["variant"])
    name = flags["name"] or Path(flags["study"]).stem or _automatic_name(invocation.preset, variants)
    check_name(name)
    kept = {key: value for key, value in invocation.overrides.items() if key not in ("run.dir", "run.name")}
    tune = flags["tune"] or tuple(file.get("tune", ()))
    study = Study(
        folder=Path(invocation.config.run.dir) / name,
        preset=invocation.path if invocation.config_given else file.get("config", invocation.path),
        overrides=file.get("overrides", {}) | kept,
        variants=variants,
        frameworks=tuple(settings["frameworks"].split(",")),
        seeds=settings["seeds"],
        match=settings["match"],
        threads=max(1, (os.cpu_count() or 1) // jobs_of(invocation)),
        question=settings["question"],
        tune=tune,
        trials=settings["trials"] if tune else 0,
        command=command_line(),
    )
    if flags["recommended"]:
        study = with_companions(study)
    study.check()
    check_ranges(study, list(map(parse_range, study.tune)))
    return study


def _automatic_name(preset: str, variants: "Sequence[Variant]") -> str:
    return "-".join([preset, *(variant.slug for variant in variants)])[:60].rstrip("-_")


def command_line() -> str:
    return shlex.join(["uv", "run", "scripts/compare.py", *sys.argv[1:]])


def jobs_of(invocation: Invocation) -> int:
    """Returns how many runs go on at a time."""
    jobs = invocation.flags["jobs"]
    if jobs < 0:
        raise UserError(f"--jobs={jobs} must be at least 1, or 0 for one per CPU core")
    return jobs or (1 if on_gpu(invocation.config.run.device) else os.cpu_count() or 1)


def on_gpu(device: str) -> bool:
    """Returns whether runs of this run.device compute on a GPU, without asking a framework."""
    return device == "cuda" or (device == "auto" and Path("/proc/driver/nvidia").exists())


def twins() -> "dict[str, Twin]":
    from parity.memory import planned

    return {name: planned(name) for name in ("torch", "flax")}


def costs(framework: str) -> "Costs":
    """Returns how a config's parameters, operations and time in a twin are found."""
    from slm_core.planner.declarations import parameters
    from slm_core.runs.vocabulary import expected_vocabulary
    from slm_core.studies.matching import Costs
    from slm_torch.flops import update_flops
    from slm_torch.model import declared

    @functools.cache
    def count(config) -> int:
        return sum(each.size for each in parameters(config, expected_vocabulary(config), declared).values())

    @functools.cache
    def flops(config) -> float:
        return update_flops(config, expected_vocabulary(config))

    return Costs(count, flops, lambda config: update_seconds(config, framework))


def update_seconds(config, framework: str) -> float:
    """Measures the seconds of an update in a process of its own."""
    from scripts.benchmarks.throughput import flax_twin, torch_twin
    from slm_core.studies.throughput import Contender, compare

    make = {"torch": torch_twin, "flax": flax_twin}[framework]
    (measured,) = compare([Contender(framework, make, config)], rounds=3, updates=5, say=lambda line: None)
    return measured.update_ms / 1e3


def measured_speeds(study: "Study") -> dict[str, float]:
    """Returns {framework: operations per second} of the first variant, measured on one run at a time."""
    config = study.config(study.variants[0])
    speeds = {}
    for framework in study.frameworks:
        say(f"measuring the speed of {framework}")
        speeds[framework] = study.facts[study.variants[0].name]["flops"] / update_seconds(config, framework)
    return speeds


def tune(study: "Study", commands: dict[str, list[str]], jobs: int) -> "Study":
    """Searches each variant's own settings, if the study asks for it; exits with status 130 if the user stops it."""
    from slm_core.studies.study import write_study
    from slm_core.studies.tuning import FOLDER, parse_range, tuned

    if not study.tune or study.tuned:
        return study
    ranges = list(map(parse_range, study.tune))
    folder = study.folder / FOLDER
    study, complete = tuned(study, ranges, study.trials, lambda cells: train(study, cells, folder, commands, jobs))
    if not complete:
        raise SystemExit(130)
    study = dataclasses.replace(study, tuned=True)
    write_study(study)
    return study


def train(study: "Study", cells: "Sequence[Cell]", folder: Path, commands: dict[str, list[str]], jobs: int) -> bool:
    """Does runs; returns False if the user stops them."""
    from slm_core.studies.display import StudyDisplay
    from slm_core.studies.runner import Runner

    with StudyDisplay(len(cells)) as display:
        return Runner(folder, study.preset, commands, jobs, display).run(cells, display.stopping)


def report(study: "Study") -> None:
    """Writes the pages of a study, and prints the answer."""
    from slm_core.studies.collect import collect
    from slm_core.studies.tuning import read_trials

    write_pages(collect(study, read_trials(study)), study.folder)


def compare_runs(invocation: Invocation) -> None:
    """Writes the pages of runs that are there."""
    from slm_core.runs.naming import check_name
    from slm_core.studies.existing import results_of_runs

    flags = invocation.flags
    name = flags["name"] or "comparison"
    check_name(name)
    folder = Path(invocation.config.run.dir) / name
    folders = [Path(each) for each in flags["runs"]]
    result = results_of_runs(folders, name, flags["question"] or "", command_line(), costs("torch").parameters)
    folder.mkdir(parents=True, exist_ok=True)
    write_pages(result, folder)


def write_pages(result: "StudyResult", folder: Path) -> None:
    from slm_core.studies.comparison import compare_all
    from slm_core.studies.report import write_report

    comparisons = compare_all(result)
    for cell in result.cells:
        if cell.error:
            print(f"failed: {Path(cell.folder).name}: {cell.error}", file=sys.stderr)
    for comparison in comparisons:
        print(f"{comparison.variant}: {comparison.verdict.text}")
    print(f"written: {write_report(result, comparisons, folder)}")


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
