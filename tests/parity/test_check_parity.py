"""scripts/check_parity.py and its parts: state transfer, results, the table, JSON, exit status."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity import report, suite
from parity.cases import BASE, PROOFS, Case, cases, config_case
from parity.checks import CHECKS, train
from parity.distances import largest, of_order_one, relative
from parity.pair import Pair
from parity.state_transfer import perturbed, snapshot, transfer
from parity.suite import Result, checks_of
from parity.tolerances import TOLERANCES
from parity.workers import run_cases
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.errors import UserError

ROOT = Path(__file__).parents[2]
CASE = Case("small", BASE)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(CASE, "float32")


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/check_parity.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_state_is_transferred_both_ways(pair):
    for first, second in ((pair.torch, pair.flax), (pair.flax, pair.torch)):
        pair.start()
        first.import_state(perturbed(first.export_state(), 5))
        transfer(first, second)
        a, b = snapshot(first), snapshot(second)
        assert a.keys() == b.keys()
        assert all(a[name].tobytes() == b[name].tobytes() and a[name].dtype == b[name].dtype for name in a)


def test_transfer_to_another_shape_is_refused(pair):
    other = Pair(Case("wider", with_values(BASE, {"model.d_model": 16})), "float32")
    with pytest.raises(UserError, match="use the config that the state was made with"):
        transfer(pair.torch, other.torch)


def test_perturbed_weights_are_nowhere_zero_or_one(pair):
    pair.start()
    state = perturbed(pair.torch.export_state(), 1)
    for name, value in state.items():
        if name.startswith(("params/", "optim/")):
            assert np.all(value != 0) and (np.ndim(value) == 0 or np.unique(value).size > 1)
    again = perturbed(state, 1)
    assert all(np.array_equal(state[name], again[name]) for name in state)


@pytest.mark.slow
def test_the_loss_curve_has_everything_on(pair):
    pair.start()
    metrics = train(pair, pair.torch, 0, 100)
    assert sum(m["grad_norm"] > BASE.optim.clip_norm for m in metrics) > 20
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.3


@pytest.mark.slow
def test_the_float16_case_overflows_and_recovers_more_than_once():
    case = next(case for case in cases() if case.name == "float16, dot_product")
    half = Pair(case, "float16")
    skipped = [m["skipped"] for m in train(half, half.torch, 0, 60)]
    assert skipped[0] == 1 and skipped.index(0.0) < 30
    assert 1.0 in skipped[skipped.index(0.0) :]


def test_distances():
    a = np.array([1.0, 2.0])
    assert largest(a, a) == relative(a, a) == of_order_one(a, a) == 0
    assert largest(a, a + [0, 0.5]) == 0.5 and largest(a, np.ones(3)) == np.inf
    assert largest(a, np.array([1.0, np.nan])) == relative(a, np.array([1.0, np.nan])) == np.inf
    assert largest(np.array([np.inf]), np.array([np.inf])) == 0
    assert relative(np.array([1e-9]), np.array([0.0])) == np.inf
    assert relative(np.array([1e-9]), np.array([0.0]), floor=1.0) == 1e-9
    assert of_order_one(10 * a, 10 * a + 1) == pytest.approx(1 / np.sqrt(np.mean((10 * a + 1) ** 2)))


def test_an_exception_in_a_case_is_a_failed_result(monkeypatch):
    def broken(case, precision, checks):
        yield Result(case.name, precision, "initial_weights", 0.0, 0.0, "", 0.0)
        raise ValueError("first line\nlast line")

    monkeypatch.setattr("parity.workers.run_case", broken)
    (results,) = run_cases([(CASE, "float64")], ["initial_weights", "logits", "gradients"], jobs=1)
    assert [(r.check, r.passed) for r in results] == [("initial_weights", True), ("logits", False)]
    assert results[1].where == "ValueError: last line"


def test_the_table_and_json(capsys, tmp_path):
    results = [
        Result("one", "float64", "initial_weights", 0.0, 0.0, "", 0.1),
        Result("one", "float64", "logits", 3e-5, 1e-12, "logits", 0.1),
        Result("one", "float64", "decoding", float("inf"), 1e-12, "tokens", 0.1),
    ]
    with report.Table(1, CHECKS, ["float64"]) as table:
        table.add(results)
        table.conclude(results)
    out = capsys.readouterr().out
    assert "3e-5 FAIL" in out and "0 ok" in out and "1 passed, 2 failed" in out
    assert "FAIL one [float64] logits: 3.0e-05 > 1e-12 at logits" in out
    assert max(map(len, out.splitlines())) <= 120
    report.write_json(tmp_path / "deep" / "parity.json", results)
    content = json.loads((tmp_path / "deep" / "parity.json").read_text())
    assert content["passed"] is False and content["results"][1]["error"] == 3e-5 and "torch" in content["versions"]
    assert content["results"][2]["error"] is None


def test_results_come_back_from_json_unless_a_source_has_changed(tmp_path, monkeypatch):
    file = tmp_path / "parity.json"
    results = [
        Result("one", "float64", "logits", 3e-15, 1e-12, "logits", 0.1),
        Result("one", "float64", "gradients", np.inf, 1.0, "", 0),
    ]
    report.write_json(file, results)
    assert report.read_json(file) == results
    monkeypatch.setattr(report, "_origin", lambda: {"sources": "other"})
    assert report.read_json(file) == []
    assert report.read_json(tmp_path / "missing.json") == []


def test_the_page_has_a_table_per_section_and_a_row_per_case():
    results = [
        Result("one", "float64", "initial_weights", 0.0, 0.0, "", 0.1),
        Result("one", "float64", "logits", 3e-15, 1e-12, "logits", 0.1),
        Result("one", "float32", "logits", 5e-7, 1e-5, "logits", 0.1),
        Result("big", "float32", "loss_curve", 2e-4, 5e-3, "step 9", 0.1),
        Result("half", "float16", "loss_curve", 1e-3, 2e-2, "step 3", 0.1),
    ]
    sections = {"one": "norms", "big": "loss curves of larger models", "half": "half precisions"}
    page = report.markdown(results, sections, "uv run scripts/check_parity.py --all")
    assert "## Norms\n| | initial weights | logits |\n|---|---|---|\n| *tolerance* | 0 · – | 1e-12 · 1e-5 |\n" in page
    assert "| one | 0 · – | 3e-15 · 5e-7 |" in page
    assert "| big | – · 2e-4 (tolerance 5e-3) |" in page and "| half | 1e-3 |" in page
    assert "5 measurements of 3 cases, all within" in page and "uv run scripts/check_parity.py --all" in page
    assert "5.0e-07 of 1e-05 (one, logits)" in page
    assert page.index("## Norms") < page.index("## Half precisions") < page.index("## Loss curves")
    broken = report.markdown([Result("one", "float64", "logits", 3e-5, 1e-12, "logits", 0.1)], sections, "x")
    assert "**3e-5**" in broken and "**1 above their tolerance**" in broken and "at logits" in broken


def test_checks_of_a_case():
    assert checks_of(CASE, "float64", ["decoding", "logits", "other"]) == ["logits", "decoding"]
    assert checks_of(CASE, "float16") == []
    half = dataclasses.replace(CASE, precisions=("float16",))
    assert checks_of(half, "float16") == ["initial_weights", "logits", "gradients", "loss_curve", "resume"]
    assert list(suite.run_case(CASE, "float16")) == []


def test_a_large_config_runs_the_checks_of_one_pass_on_one_sequence():
    case = config_case("big", load("configs/gpt2.py:124m")[0])
    assert (
        case.checks == ("initial_weights", "logits", "gradients") and case.rows == 1 and case.large and not case.quick
    )
    assert case.config.model == load("configs/gpt2.py:124m")[0].model and case.vocab_size == 50257


@pytest.mark.slow
def test_the_script_runs_a_config(tmp_path):
    file = tmp_path / "parity.json"
    done = run(
        "--config=configs/gpt2.py:tiny", "--checks=initial_weights", "--precision=float32", f"--json={file}", "--jobs=1"
    )
    assert done.returncode == 0, done.stderr
    assert "gpt2-tiny" in done.stdout and "1 passed, 0 failed" in done.stdout
    assert json.loads(file.read_text())["passed"] is True


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--checks=update,logit", "'logit' is not one of initial_weights, logits, gradients, update, loss_curve"),
        ("--checks=losscurve", "did you mean loss_curve?"),
        ("--precision=float63", "did you mean float"),
        ("--component=ropee", "did you mean rope?"),
    ],
)
def test_mistakes_are_one_line(argument, message):
    done = run(argument)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_component_resumed_and_written_as_a_page(tmp_path):
    file, page = tmp_path / "parity.json", tmp_path / "parity.md"
    arguments = [
        "--component=linear",
        "--checks=initial_weights",
        "--precision=float32",
        f"--json={file}",
        f"--markdown={page}",
    ]
    first = run(*arguments, "--jobs=1")
    assert first.returncode == 0 and "schedule=linear" in first.stdout and "schedule=linear" in page.read_text()
    written = file.read_text()
    content = json.loads(written)
    for row in content["results"]:
        row["seconds"] = 1234.0
    file.write_text(json.dumps(content))
    assert run(*arguments, "--resume").returncode == 0
    assert {row["seconds"] for row in json.loads(file.read_text())["results"]} == {1234.0}


@pytest.mark.slow
def test_a_failure_is_exit_status_1(monkeypatch, tmp_path):
    code = (
        "import runpy, sys; from parity.tolerances import TOLERANCES; TOLERANCES['float32']['initial_weights'] = -1.0;"
        " words = '--component=linear --checks=initial_weights --precision=float32 --json= --jobs=1'.split();"
        " sys.argv = ['check_parity', *words]; runpy.run_path('scripts/check_parity.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "FAIL" in done.stdout


def test_a_page_that_is_written_again_keeps_its_bisections(tmp_path):
    page = tmp_path / "parity.md"
    report.write_markdown(page, "# Old\n")
    page.write_text(page.read_text() + report.BISECTIONS + "what was printed\n")
    report.write_markdown(page, "# New\n")
    assert page.read_text() == f"# New\n{report.BISECTIONS}what was printed\n"


def test_every_tolerance_is_of_a_check_and_the_proof_has_all():
    assert all(set(table) <= set(CHECKS) for table in TOLERANCES.values())
    assert all(set(TOLERANCES[precision]) == set(CHECKS) for precision in PROOFS)
    assert all(set(case.checks) <= set(CHECKS) for case in cases())
    assert {name for case in cases() for name, _ in case.tolerances} <= set(CHECKS)


def test_the_table_of_checks_starts_no_framework():
    code = "import sys, scripts.check_parity; print([name for name in ('jax', 'torch', 'flax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
