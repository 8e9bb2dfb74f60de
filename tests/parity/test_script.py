"""scripts/parity.py and what it stands on: porting, results, the table, JSON, exit status."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity import ladder, report
from parity.cells import BASE, Cell, config_cell
from parity.errors import largest, of_order_one, relative
from parity.ladder import Result, rungs_of
from parity.pair import Pair
from parity.port import perturbed, port, snapshot
from parity.rungs import train
from parity.workers import climb_all
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.errors import UserError

ROOT = Path(__file__).parents[2]
CELL = Cell("small", BASE)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(CELL, "float32")


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/parity.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_porting_both_ways(pair):
    for first, second in ((pair.torch, pair.flax), (pair.flax, pair.torch)):
        pair.start()
        first.import_state(perturbed(first.export_state(), 5))
        port(first, second)
        a, b = snapshot(first), snapshot(second)
        assert a.keys() == b.keys()
        assert all(a[name].tobytes() == b[name].tobytes() and a[name].dtype == b[name].dtype for name in a)


def test_porting_to_another_shape_is_refused(pair):
    other = Pair(Cell("wider", with_values(BASE, {"model.d_model": 16})), "float32")
    with pytest.raises(UserError, match="use the config that the state was made with"):
        port(pair.torch, other.torch)


def test_perturbed_weights_are_nowhere_zero_or_one(pair):
    pair.start()
    state = perturbed(pair.torch.export_state(), 1)
    for name, value in state.items():
        if name.startswith(("params/", "optim/")):
            assert np.all(value != 0) and (np.ndim(value) == 0 or np.unique(value).size > 1)
    again = perturbed(state, 1)
    assert all(np.array_equal(state[name], again[name]) for name in state)


def test_the_curve_has_everything_on(pair):
    pair.start()
    metrics = train(pair, pair.torch, 0, 100)
    assert sum(m["grad_norm"] > BASE.optim.clip_norm for m in metrics) > 20
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.3


def test_the_float16_cell_overflows_and_recovers_more_than_once():
    from parity.cells import cells

    cell = next(cell for cell in cells() if cell.name == "float16, dot_product")
    half = Pair(cell, "float16")
    skipped = [m["skipped"] for m in train(half, half.torch, 0, 60)]
    assert skipped[0] == 1 and skipped.index(0.0) < 30
    assert 1.0 in skipped[skipped.index(0.0) :]


def test_errors():
    a = np.array([1.0, 2.0])
    assert largest(a, a) == relative(a, a) == of_order_one(a, a) == 0
    assert largest(a, a + [0, 0.5]) == 0.5 and largest(a, np.ones(3)) == np.inf
    assert largest(a, np.array([1.0, np.nan])) == relative(a, np.array([1.0, np.nan])) == np.inf
    assert largest(np.array([np.inf]), np.array([np.inf])) == 0
    assert relative(np.array([1e-9]), np.array([0.0])) == np.inf
    assert relative(np.array([1e-9]), np.array([0.0]), floor=1.0) == 1e-9
    assert of_order_one(10 * a, 10 * a + 1) == pytest.approx(1 / np.sqrt(np.mean((10 * a + 1) ** 2)))


def test_an_exception_in_a_cell_is_a_failed_result(monkeypatch):
    def broken(cell, precision, rungs):
        yield Result(cell.name, precision, 0, 0.0, 0.0, "", 0.0)
        raise ValueError("first line\nlast line")

    monkeypatch.setattr("parity.workers.climb", broken)
    (results,) = climb_all([(CELL, "float64")], [0, 1, 2], jobs=1)
    assert [(r.rung, r.passed) for r in results] == [(0, True), (1, False)]
    assert results[1].where == "ValueError: last line"


def test_the_table_and_json(capsys, tmp_path):
    results = [
        Result("one", "float64", 0, 0.0, 0.0, "", 0.1),
        Result("one", "float64", 1, 3e-5, 1e-12, "logits", 0.1),
        Result("one", "float64", 5, float("inf"), 1e-12, "tokens", 0.1),
    ]
    with report.Table(1, range(7), ["float64"]) as table:
        table.add(results)
        table.conclude(results)
    out = capsys.readouterr().out
    assert "3e-5 FAIL" in out and "0 ok" in out and "1 passed, 2 failed" in out
    assert "FAIL one [float64] rung 1 (logits): 3.0e-05 > 1e-12 at logits" in out
    assert max(map(len, out.splitlines())) <= 120
    report.write_json(tmp_path / "deep" / "parity.json", results)
    content = json.loads((tmp_path / "deep" / "parity.json").read_text())
    assert content["passed"] is False and content["results"][1]["error"] == 3e-5 and "torch" in content["versions"]
    assert content["results"][2]["error"] is None


def test_results_come_back_from_json_unless_a_source_has_changed(tmp_path, monkeypatch):
    file = tmp_path / "parity.json"
    results = [
        Result("one", "float64", 1, 3e-15, 1e-12, "logits", 0.1),
        Result("one", "float64", 2, np.inf, 1.0, "", 0),
    ]
    report.write_json(file, results)
    assert report.read_json(file) == results
    monkeypatch.setattr(report, "_origin", lambda: {"sources": "other"})
    assert report.read_json(file) == []
    assert report.read_json(tmp_path / "missing.json") == []


def test_the_page_has_a_table_a_section_and_a_row_a_cell():
    results = [
        Result("one", "float64", 0, 0.0, 0.0, "", 0.1),
        Result("one", "float64", 1, 3e-15, 1e-12, "logits", 0.1),
        Result("one", "float32", 1, 5e-7, 1e-5, "logits", 0.1),
        Result("big", "float32", 4, 2e-4, 5e-3, "step 9", 0.1),
        Result("half", "float16", 4, 1e-3, 2e-2, "step 3", 0.1),
    ]
    sections = {"one": "norms", "big": "curves of larger models", "half": "half precisions"}
    page = report.markdown(results, sections, "uv run scripts/parity.py --all")
    assert "## Norms\n| | init | logits |\n|---|---|---|\n| *budget* | 0 · – | 1e-12 · 1e-5 |\n" in page
    assert "| one | 0 · – | 3e-15 · 5e-7 |" in page
    assert "| big | – · 2e-4 (budget 5e-3) |" in page and "| half | 1e-3 |" in page
    assert "5 measurements of 3 models, all within" in page and "uv run scripts/parity.py --all" in page
    assert "5.0e-07 of 1e-05 (one, logits)" in page
    assert page.index("## Norms") < page.index("## Half precisions") < page.index("## Curves")
    broken = report.markdown([Result("one", "float64", 1, 3e-5, 1e-12, "logits", 0.1)], sections, "x")
    assert "**3e-5**" in broken and "**1 over budget**" in broken and "at logits" in broken


def test_rungs_of_a_cell():
    assert rungs_of(CELL, "float64", [5, 1, 9]) == [1, 5]
    assert rungs_of(CELL, "float16") == []
    half = dataclasses.replace(CELL, precisions=("float16",))
    assert rungs_of(half, "float16") == [0, 1, 2, 4, 6]
    assert list(ladder.climb(CELL, "float16")) == []


def test_a_large_config_climbs_the_first_rungs_on_one_sequence():
    cell = config_cell("big", load("configs/gpt2.py:124m")[0])
    assert cell.rungs == (0, 1, 2) and cell.rows == 1 and cell.large and not cell.quick
    assert cell.config.model == load("configs/gpt2.py:124m")[0].model and cell.vocab_size == 50257


def test_the_script_climbs_a_config(tmp_path):
    file = tmp_path / "parity.json"
    done = run("--config=configs/gpt2.py:tiny", "--rungs=0", "--precision=float32", f"--json={file}", "--jobs=1")
    assert done.returncode == 0, done.stderr
    assert "gpt2-tiny" in done.stdout and "1 passed, 0 failed" in done.stdout
    assert json.loads(file.read_text())["passed"] is True


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--rungs=7", "--rungs=7: '7' is not one of 0, 1"),
        ("--precision=float63", "did you mean float"),
        ("--component=ropee", "did you mean rope?"),
    ],
)
def test_mistakes_are_one_line(argument, message):
    done = run(argument)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_component_resumed_and_written_as_a_page(tmp_path):
    file, page = tmp_path / "parity.json", tmp_path / "parity.md"
    arguments = ["--component=linear", "--rungs=0", "--precision=float32", f"--json={file}", f"--markdown={page}"]
    first = run(*arguments, "--jobs=1")
    assert first.returncode == 0 and "schedule=linear" in first.stdout and "schedule=linear" in page.read_text()
    written = file.read_text()
    content = json.loads(written)
    for row in content["results"]:
        row["seconds"] = 1234.0
    file.write_text(json.dumps(content))
    assert run(*arguments, "--resume").returncode == 0
    assert {row["seconds"] for row in json.loads(file.read_text())["results"]} == {1234.0}


def test_a_failure_is_exit_status_1(monkeypatch, tmp_path):
    code = (
        "import runpy, sys; sys.argv = ['parity', '--component=linear', '--rungs=0', '--precision=float32', '--json=',"
        " '--jobs=1']; import parity.budgets as b; b.BUDGETS['float32'][0] = -1.0;"
        " runpy.run_path('scripts/parity.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "FAIL" in done.stdout


def test_a_page_written_anew_keeps_its_bisections(tmp_path):
    page = tmp_path / "parity.md"
    report.write_markdown(page, "# Old\n")
    page.write_text(page.read_text() + report.BISECTIONS + "what was printed\n")
    report.write_markdown(page, "# New\n")
    assert page.read_text() == f"# New\n{report.BISECTIONS}what was printed\n"
