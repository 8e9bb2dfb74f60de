"""Writes the table of docs/reproducibility.md: which changes of a command change the losses of a run."""

import sys
import tempfile
from pathlib import Path

from scripts.pages._marked import marked_page, write_measured
from slm_core.cli.command_line import Flag, Invocation, main

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = """Trains a small run in either twin, then again with the same command and with settings that should
change nothing, or rounding alone. Writes how far the losses differ between the two marks of the page. Takes nine
minutes on 2 cores. Exits with 1 if a run that must be the same is not."""

FLAGS = [Flag("markdown", str, "docs/reproducibility.md", "page whose table is written anew")]


def run(invocation: Invocation) -> None:
    page = marked_page(invocation.flags["markdown"])
    from slm_core.logging import say
    from slm_core.studies.reproducibility import failures, measure, table
    from slm_core.studies.runner import training_commands

    with tempfile.TemporaryDirectory() as folder:
        rows = measure(training_commands(ROOT, sys.executable), Path(folder), say)
    write_measured(page, table(rows))
    for line in failures(rows):
        print(line)
    if failures(rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
