"""Writes the table of docs/reproducibility.md: which changes of a command change the losses of a run."""

import sys
import tempfile
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
DESCRIPTION = """Trains a small run in either twin, then again with the same command and with settings that should
change nothing, or rounding alone. Writes how far the losses differ between the two marks of the page. Takes nine
minutes on 2 cores. Exits with 1 if a run that must be the same is not."""

FLAGS = [Flag("markdown", str, "docs/reproducibility.md", "page whose table is written anew")]


def run(invocation: Invocation) -> None:
    page = Path(invocation.flags["markdown"])
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if BEGIN not in text or END not in text:
        raise UserError(f"--markdown={page} has no lines '{BEGIN.strip()}' and '{END.strip()}': name the page")
    from slm_core.logging import say
    from slm_core.studies.machine import machine
    from slm_core.studies.reproducibility import failures, measure, table
    from slm_core.studies.runner import training_commands

    with tempfile.TemporaryDirectory() as folder:
        rows = measure(training_commands(ROOT, sys.executable), Path(folder), say)
    measured = f"{table(rows)}\n\nMeasured on: {machine()}.\n"
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}", encoding="utf-8")
    print(f"written: {page}")
    for line in failures(rows):
        print(line)
    if failures(rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
