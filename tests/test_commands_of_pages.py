"""Every command that README and docs/ show has flags, fields and values that the script takes."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from slm_core.cli import command_line

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
READS_A_RUN = "configs/finetune.py:models/"
"""A preset that reads the run that it names, which is not there."""


def commands(page: Path) -> list[str]:
    """Lists the commands of a page's blocks of code that start a script."""
    lines = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").split("\n")
    shown = [line.strip() for line in lines if line.strip().startswith("uv run scripts/")]
    return [line for line in shown if READS_A_RUN not in line and "..." not in line]


COMMANDS = [pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in commands(page)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_script_takes_the_command(line, monkeypatch):
    script, *words = shlex.split(line, comments=True)[2:]
    parsed = []

    def parse_only(run, description, extra_flags=(), *, takes_config=True, needs_data=True, argv=None):
        if not {"-h", "--help"} & set(words):
            command_line.parse(words, extra_flags, takes_config=takes_config, needs_data=False)
        parsed.append(script)

    monkeypatch.setattr(command_line, "main", parse_only)
    monkeypatch.setattr(sys, "argv", [script, *words])
    runpy.run_path(str(ROOT / script), run_name="__main__")
    assert parsed == [script]
