"""What the surveys of generated mutants share: the tests that face a mutant, and the account of those that are left."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

Reasons = Mapping[str, Sequence[str]]
"""{why no test can tell them from the original: names of mutants, each as often as there are such mutants}."""


def tests_pass(files: Sequence[str], keyword: str) -> bool:
    """Runs tests in this process, up to the first failure. What passes beside a mutant is not kept as passed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return pytest.main(["-x", "-q", "-n", "0", "-p", "no:tests.resumed", "-k", keyword, *files]) == 0


def survey(module: str, name: str) -> Any:
    """Runs `python -m module name` in a process of its own; returns what it prints as JSON in its last line."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "parity")))
    done = subprocess.run(
        [sys.executable, "-m", module, name],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def account(where: str, told: Mapping[str, Any], reasons: Reasons) -> dict[str, Any]:
    """Returns what `mutation_score` reads of a file: how many mutants were made, and those left with their reasons."""
    why = {name: reason for reason, names in reasons.items() for name in names}
    return {"where": where, "made": told["made"], "left": [[name, why.get(name, "")] for name in told["left"]]}


def expected(reasons: Reasons) -> Counter[str]:
    """Counts the mutants that have a reason."""
    return Counter(name for names in reasons.values() for name in names)
