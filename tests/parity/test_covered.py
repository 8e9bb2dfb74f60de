"""The proof reaches every line and branch of the twins, or a reason says why not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity.covered import ROOT, _missing, tasks
from tests.parity.uncovered import REASONS, outdated, reasons

EXAMPLE = """
def reached(x):
    if x:  # a comment
        return 1
    return 2


def not_reached():
    return 3
"""


def test_what_is_missing_is_named_by_its_text(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.parity.covered.ROOT", tmp_path)
    Path(tmp_path, "example.py").write_text(EXAMPLE)
    told = {
        "functions": {
            "reached": {"missing_lines": [4], "executed_lines": [3, 5]},
            "not_reached": {"missing_lines": [9], "executed_lines": []},
        },
        "missing_lines": [4, 9],
        "missing_branches": [[3, 4]],
    }
    assert list(_missing("example.py", told)) == ["not_reached()", "return 1", "if x: never true"]
    assert list(_missing("example.py", told | {"missing_branches": [[3, 5]]}))[-1] == "if x: never false"


def test_a_reason_is_for_one_place():
    places = [place for each in REASONS.values() for place in each]
    assert len(places) == len(set(places))
    missing = {"slm_torch/loss.py": ["scores()", "sums()"], "slm_flax/loss.py": ["scores()"]}
    assert [bool(why) for why in reasons(missing).values()] == [True, False, True]
    assert "loss.py: scores()" not in outdated(missing) and "loss.py: token_scores()" in outdated(missing)


def test_every_small_case_is_measured():
    assert len(tasks()) > 100 and len({case.name for case, _ in tasks()}) > 90


@pytest.mark.exhaustive
def test_the_proof_reaches_every_branch_or_a_reason_says_why_not():
    command = [sys.executable, "-m", "tests.parity.covered", "1"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    missing = {file: told["missing"] for file, told in json.loads(done.stdout).items()}
    assert [place for place, why in reasons(missing).items() if not why] == []
    assert outdated(missing) == set()
