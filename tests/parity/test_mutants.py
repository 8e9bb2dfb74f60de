"""Every generated mutant of a twin is found by the proof, or by a test of its file, or it changes nothing."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from faults import generated
from faults.equivalent import EQUIVALENT

import slm_core.model.mup
from tests.mutation_score import markdown
from tests.parity import mutants

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


def test_verdicts_are_kept_until_a_source_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "KEPT", tmp_path)
    monkeypatch.setattr(mutants, "_sources", lambda: "before")
    first, second, third, *_ = made = generated.mutants_of(slm_core.model.mup)
    mutants.Verdicts("torch", made).keep("stage", first, True)
    mutants.Verdicts("torch", made).keep("stage", second, False)
    with (tmp_path / "torch.jsonl").open("a") as file:
        file.write('{"stage": "stage", "mutant": 2, "fo')  # stopped while it wrote
    verdicts = mutants.Verdicts("torch", made)
    assert [verdicts.get("stage", mutant) for mutant in (first, second, third)] == [True, False, None]
    assert verdicts.get("another stage", first) is None
    monkeypatch.setattr(mutants, "_sources", lambda: "after")
    assert mutants.Verdicts("torch", made).get("stage", first) is None


def test_the_page_keeps_what_a_run_does_not_measure():
    core = {"where": "slm_core.model.mup", "made": 9, "left": [["a | b -> b", "the same"]]}
    torch = {"where": "slm_torch.loss", "made": 5, "left": []}
    page = markdown([], [torch], markdown([], [core], "# Planted\n"))
    assert page.startswith("# Planted\n")
    assert "**13 of 14 caught, the others explained.**" in page
    assert "| `slm_core.model.mup` | 9 | 8 | 1 |" in page and "| `slm_torch.loss` | 5 | 5 | 0 |" in page
    assert "| `a \\| b -> b` | the same |" in page
    again = {"where": "slm_core.model.mup", "made": 9, "left": [["c -> d", ""]]}
    assert "| `c -> d` | **unexplained** |" in markdown([], [again], page)
    assert "a \\| b" not in markdown([], [again], page)
