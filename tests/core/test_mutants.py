"""Every mutant of what both twins share is caught by a test of its file, or known to change nothing."""

import json
import os
import subprocess
import sys
from collections import Counter
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
    reasons = {mutant: reason for reason, mutants in EQUIVALENT.get(name, {}).items() for mutant in mutants}
    left = [[mutant, reasons.get(mutant, "")] for mutant in told["left"]]
    record_property("mutants", {"where": f"slm_core.{name}", "made": told["made"], "left": left})
    known = Counter(mutant for mutants in EQUIVALENT.get(name, {}).values() for mutant in mutants)
    assert told["made"] > 0 and Counter(told["left"]) == known
