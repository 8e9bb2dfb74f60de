"""Every command that README and docs/ show has flags, fields and values that the script takes."""

import runpy
import shlex
import sys
from pathlib import Path

import pytest

from scripts.pages.tutorial import commands
from slm_core.cli import command_line

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READS_A_RUN = ("configs/finetune.py:models/", "--config.run.resume_from=", "--config.run.branch=")
"""What reads the run that it names, which is not there."""


def complete(page: Path) -> list[str]:
    """Lists the commands of a page that leave nothing out and read no run."""
    return [line for line in commands(page) if not any(part in line for part in (*READS_A_RUN, "..."))]


COMMANDS = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in complete(page)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_script_takes_the_command(line, monkeypatch):
    script, *words = shlex.split(line, comments=True)[2:]
    parsed = []

    def parse_only(run, description, extra_flags=(), *, takes_config=True, needs_data=True, argv=None):
        if not {"-h", "--help"} & set(words):
            command_line.parse(
                words if argv is None else argv, extra_flags, takes_config=takes_config, needs_data=False
            )
        parsed.append(script)

    monkeypatch.setattr(command_line, "main", parse_only)
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(str(ROOT / script), run_name="__main__")
    assert parsed == [script]
