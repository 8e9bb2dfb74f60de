"""Every mutant of what both twins share is caught by a test of its file, or known to change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.mutants import EQUIVALENT, TESTS

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TESTS)
def test_a_mutant_that_is_not_caught_changes_nothing(name, record_property):
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "parity")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.mutants", name],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    known = {mutant for mutants in EQUIVALENT.get(name, {}).values() for mutant in mutants}
    record_property("mutants_of_core", [name, told["made"], len(told["left"])])
    assert set(told["left"]) <= known
