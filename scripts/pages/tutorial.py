"""Runs the commands of docs/tutorial.md one after another, says how long each took, and renews its picture."""

import re
import shutil
import subprocess
import time
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError
from slm_core.logging import say
from slm_core.training.display.plain import duration

ROOT = Path(__file__).resolve().parents[2]
PICTURE = "models/key-heads/report-final-differences.png", "docs/tutorial-differences.png"
"""A file that the commands make, and its copy beside the page."""
_BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Lists the commands that a page's blocks of code start a script with."""
    blocks = "\n".join(_BLOCK.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    return [line.strip() for line in blocks.split("\n") if line.strip().startswith("uv run scripts/")]


def run(invocation: Invocation) -> None:
    spent = {line: _seconds(line) for line in commands(ROOT / invocation.flags["page"])}
    made, copy = PICTURE
    shutil.copy(ROOT / made, ROOT / copy)
    for line, seconds in spent.items():
        print(f"{duration(seconds):>8}  {line}")
    print(f"{duration(sum(spent.values())):>8}  all of them")


def _seconds(line: str) -> float:
    """Runs a command and returns how long it took."""
    say(f"$ {line}")
    start = time.monotonic()
    status = subprocess.run(line, shell=True, cwd=ROOT, check=False).returncode
    if status:
        raise UserError(f"{line!r} failed with status {status}: correct the command, or the page that shows it")
    return time.monotonic() - start


if __name__ == "__main__":
    main(
        run,
        "Runs the commands of the tutorial in this checkout, and times them. Takes about 15 minutes.",
        [Flag("page", str, "docs/tutorial.md", "page whose commands are run")],
        takes_config=False,
    )
