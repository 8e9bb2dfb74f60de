"""Every generated mutant of a twin is found by the proof, or by a test of its file, or it changes nothing."""

import subprocess
import sys
from collections import Counter

import pytest
from faults import generated
from faults.equivalent import EQUIVALENT

import slm_core.model.mup
from tests.generated_mutants import ROOT, account, expected, survey
from tests.mutation_score import markdown
from tests.parity import mutants


@pytest.mark.exhaustive
@pytest.mark.parametrize("twin", EQUIVALENT)
def test_a_mutant_that_is_not_found_changes_nothing(twin, record_property):
    left = Counter()
    for file, told in survey("tests.parity.mutants", twin).items():
        record_property("mutants", account(f"slm_{twin}.{file}", told, EQUIVALENT[twin]))
        left.update(told["left"])
    assert left == expected(EQUIVALENT[twin])


def test_verdicts_are_kept_until_a_source_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "KEPT", tmp_path)
    monkeypatch.setattr(mutants, "_proof", lambda: "before")
    first, second, third, *_ = made = generated.mutants_of(slm_core.model.mup)
    tried = []

    def finds(mutant):
        tried.append(mutant)
        return mutant is first

    assert mutants.Verdicts("torch", made).found("stage", [first, second], finds) == {first}
    with (tmp_path / "torch.jsonl").open("a") as file:
        file.write('{"stage": "stage", "mutant": 2, "fo')  # stopped while it wrote
    verdicts = mutants.Verdicts("torch", made)
    assert verdicts.found("stage", [first, second, third], finds) == {first} and tried == [first, second, third]
    assert verdicts.found("another stage", [second], finds) == set() and tried[3:] == [second]
    monkeypatch.setattr(mutants, "_proof", lambda: "after")
    assert mutants.Verdicts("torch", made).found("stage", [first], finds) == {first} and tried[4:] == [first]


def test_what_passes_beside_a_mutant_is_not_kept_as_passed(tmp_path):
    code = (
        "import sys, pathlib\n"
        "import tests.generated_mutants, tests.resumed\n"
        "tests.resumed.KEPT = kept = pathlib.Path(sys.argv[1])\n"
        "assert tests.generated_mutants.tests_pass(['tests/test_resumed.py'], 'estimate')\n"
        "assert not kept.exists()"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "passed"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_keeps_what_a_run_does_not_measure():
    core = {"where": "slm_core.model.mup", "made": 9, "left": [["a | b -> b", "the same"]]}
    torch = {"where": "slm_torch.loss", "made": 5, "left": []}
    page = markdown([], [], [torch], markdown([], [], [core], "# Planted\n"))
    assert page.startswith("# Planted\n")
    assert "**13 of 14 caught, the others explained.**" in page
    assert "| `slm_core.model.mup` | 9 | 8 | 1 |" in page and "| `slm_torch.loss` | 5 | 5 | 0 |" in page
    assert "| `a \\| b -> b` | the same |" in page
    again = {"where": "slm_core.model.mup", "made": 9, "left": [["c -> d", ""]]}
    assert "| `c -> d` | **unexplained** |" in markdown([], [], [again], page)
    assert "a \\| b" not in markdown([], [], [again], page)
    both = {"kind": "both twins", "fault": "a sign", "files": ["slm_core/x.py"], "test": "tests/x.py", "caught": True}
    longer = markdown([], [both], [], page)
    assert "# Planted\n" in longer and "**1 of 1 caught.**" in longer and "| a sign | `slm_core/x.py` |" in longer
    assert longer.endswith(page.partition("## Generated mutants")[2])
    assert markdown([], [], [torch], longer) == longer
