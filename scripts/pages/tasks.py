"""Writes the table of docs/tasks.md: what each preset learns, and what it learns without what the task needs."""

import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from configs.tasks import LIMITED
from scripts.pages._marked import marked_page, write_measured
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """Trains every preset of configs/tasks.py with seed 0 in either twin, as it is and with the change that
takes from it what the task needs. Writes the accuracies between the two marks of the page. Each run has one thread.
Takes ten minutes on 2 cores; a second call goes on where the first one stopped."""

FLAGS = [
    Flag("markdown", str, "docs/tasks.md", "page whose table is written anew"),
    Flag("folder", str, "models/tasks", "folder of the runs"),
    Flag("jobs", int, os.cpu_count() or 1, "runs at a time"),
]


class Job(NamedTuple):
    """One run: a preset in a twin, with changes of its fields."""

    preset: str
    changes: Mapping[str, Any]
    twin: str

    @property
    def name(self) -> str:
        return f"{self.preset}-{'limited' if self.changes else 'whole'}-{self.twin}"


def jobs() -> Iterator[Job]:
    for preset, changes in LIMITED.items():
        yield from (Job(preset, fields, twin) for fields in ({}, changes) for twin in ("torch", "flax"))


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    page = marked_page(flags["markdown"])
    if flags["jobs"] < 1:
        raise UserError(f"--jobs={flags['jobs']} must be at least 1")
    from slm_core.logging import say
    from slm_core.studies.runner import training_commands

    commands, folder, todo = training_commands(ROOT, sys.executable), Path(flags["folder"]), list(jobs())
    with ThreadPoolExecutor(flags["jobs"]) as pool:
        for number, job in enumerate(pool.map(lambda job: _train(commands[job.twin], job, folder), todo), 1):
            say(f"{number}/{len(todo)} runs: {job.name}")
    write_measured(page, _table(folder))


def _train(command: list[str], job: Job, folder: Path) -> Job:
    from slm_core.studies.runner import train_once

    settings = {"run.dir": str(folder), "run.name": job.name, "run.threads": 1, "run.device": "cpu", **job.changes}
    train_once([*command, "--config", f"configs/tasks.py:{job.preset}"], settings)
    return job


def _table(folder: Path) -> str:
    from slm_core.config.values import value_text
    from slm_core.studies.collect import read_run
    from slm_core.studies.tables import markdown_table

    rows = []
    for preset, limits in LIMITED.items():
        for changes in ({}, limits):
            runs = [read_run(folder / Job(preset, changes, twin).name, preset, twin, 0) for twin in ("torch", "flax")]
            last = [run.evaluations[-1] for run in runs]
            seconds = [point.tokens / run.tokens_per_second for point, run in zip(last, runs, strict=True)]
            rows.append((
                f"`{preset}`",
                ", ".join(f"`{name}={value_text(value)}`" for name, value in changes.items()),
                str(last[0].step),
                *(f"{point.accuracy:.3f}" for point in last),
                *(f"{each:.0f} s" for each in seconds),
            ))  # fmt: skip
    titles = ("preset", "changes", "updates", "accuracy, PyTorch", "accuracy, Flax", "time, PyTorch", "time, Flax")
    return markdown_table(titles, rows)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
