"""Writes docs/coverage.md: which lines and branches of both twins the proof reaches, and why not the others."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file
from slm_core.errors import UserError

DESCRIPTION = """Runs the proof of every small case under coverage.py. Exits with 1 if a line or a branch of a twin is
not reached, and no reason says why. Takes a quarter of an hour on 2 cores."""

COMMAND = "uv run scripts/pages/proof_coverage.py"
ROOT = Path(__file__).resolve().parents[2]
TWINS = {"slm_torch": "PyTorch", "slm_flax": "Flax"}

FLAGS = [
    Flag("markdown", str, "docs/coverage.md", "page to write"),
    Flag("jobs", int, os.cpu_count() or 1, "processes"),
]

HEAD = f"""# Coverage of the twins under the proof

Written by `{COMMAND}`, not by hand. It runs the proof of every small case, and measures with coverage.py
which lines and branches of both twins it reaches. A branch is one of the two ways on from a condition or a loop.
PyTorch's lines are measured while they run, Flax's while JAX traces them.

Measured are `layers/` with the caches, `optim/`, `quantization/`, the losses, the model, the decoder (`generate.py`),
recomputation, stacks of layers, parameters and the trainer. The other files compute nothing of a model. Conditions
inside an expression are no branches: [mutants](mutations.md) try those.

"""


def run(invocation: Invocation) -> None:
    target = output_file("markdown", invocation.flags["markdown"], [".md"])
    if invocation.flags["jobs"] < 1:
        raise UserError(f"--jobs={invocation.flags['jobs']} must be at least 1")
    from tests.parity.covered import tasks
    from tests.parity.uncovered import reasons

    measured = _measure(invocation.flags["jobs"])
    why = reasons({file: told["missing"] for file, told in measured.items()})
    count = f"**{len(tasks())} runs of {len({case.name for case, _ in tasks()})} cases.**\n\n"
    target.write_text(HEAD + count + _table(measured) + _missing(why), encoding="utf-8")
    print(f"written: {target}")
    silent = [place for place, reason in why.items() if not reason]
    for file, what in silent:
        print(f"not reached, without a reason: {file}: {what}")
    if silent:
        raise SystemExit(1)


def _measure(jobs: int) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.parity.covered", str(jobs)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    if done.returncode:
        raise UserError("the proof failed: see above")
    return json.loads(done.stdout)


def _table(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Makes a line for each package and twin."""
    from slm_core.studies.tables import markdown_table

    sums: dict[tuple[str, str], list[int]] = {}
    for file, told in measured.items():
        twin, _, rest = file.partition("/")
        package = rest.partition("/")[0] + ("/" if "/" in rest else "")
        for key in ((package, twin), ("sum", twin)):
            total = sums.setdefault(key, [0, 0, 0, 0])
            sums[key] = [a + b for a, b in zip(total, (*told["lines"], *told["branches"]), strict=True)]
    packages = sorted({package for package, _ in sums} - {"sum"}, key=lambda name: ("/" not in name, name))
    rows = [
        [f"`{package}`" if package != "sum" else "sum", TWINS[twin], *_shares(sums[package, twin])]
        for package in (*packages, "sum")
        for twin in TWINS
        if (package, twin) in sums
    ]
    return markdown_table(["package", "twin", "lines", "branches"], rows)


def _shares(counts: list[int]) -> list[str]:
    pairs = (counts[:2], counts[2:])
    return [f"{reached} of {whole}" + (f" ({reached / whole:.1%})" if whole else "") for reached, whole in pairs]


def _missing(why: Mapping[tuple[str, str], str]) -> str:
    """Makes a table of what is not reached, by reason."""
    from slm_core.studies.tables import markdown_table

    rows = [
        [f"`{file}`", f"`{what}`", reason] for (file, what), reason in sorted(why.items(), key=lambda each: each[1])
    ]
    return "\n\n## Not reached\n\n" + markdown_table(["file", "what", "why"], rows) + "\n"


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
