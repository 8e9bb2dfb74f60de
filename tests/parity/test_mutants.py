"""Every generated mutant of a twin is found by the proof, or by a test of its file, or it changes nothing."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from faults.equivalent import EQUIVALENT

ROOT = Path(__file__).parents[2]


@pytest.mark.exhaustive
@pytest.mark.parametrize("twin", EQUIVALENT)
def test_a_mutant_that_is_not_found_changes_nothing(twin, record_property):
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "parity")))
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity.mutants", twin],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    names = [name for names in EQUIVALENT[twin].values() for name in names]
    why = {name: reason for reason, names in EQUIVALENT[twin].items() for name in names}
    every = []
    for file, told in json.loads(done.stdout.splitlines()[-1]).items():
        left = [[name, why.get(name, "")] for name in told["left"]]
        record_property("mutants", {"where": f"slm_{twin}.{file}", "made": told["made"], "left": left})
        every += told["left"]
    assert Counter(every) == Counter(names)
