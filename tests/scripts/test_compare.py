"""scripts/compare.py, from the question to the page."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slm_core.studies.collect import collect_finished
from slm_core.studies.comparison import compare_all

ROOT = Path(__file__).parents[2]
TINY = (
    "--config.model.d_model=32", "--config.model.n_layers=1", "--config.data.seq_len=16", "--config.train.steps=6",
    "--config.train.batch_size=2", "--config.train.eval_batches=2", "--config.train.eval_every=3",
    "--config.optim.warmup_steps=2", "--config.run.tensorboard=false",
)  # fmt: skip


def compare(folder, *words, check=True):
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), f"--config.run.dir={folder}", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a study compares at least two variants"),
        (("--vary=model.norm.kind=rmsnorm,rms_norm",), "model.norm.kind=rms_norm is not one of"),
        (("--vary=model.norm.kind=rmsnorm,dyt", "--seeds=0"), "--seeds=0"),
        (("--vary=model.norm.kind=rmsnorm,dyt", "--match=parameter"), "did you mean parameters"),
        (("--vary=model.norm.kind=rmsnorm,dyt", "--name=a/b"), "must be a plain name of a folder"),
        (("--study=configs/studies/none.py",), "is not a file"),
        (("--runs=models/nothing", "--runs=models/other"), "not a run"),
        (("--vary=model.norm.kind=rmsnorm,dyt", "--tune=optim.lr"), "write --tune=FIELD=LOW..HIGH"),
        (("--vary=model.norm.kind=rmsnorm,dyt", "--report-only", "--name=none"), "it holds no study"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(tmp_path, words, message):
    done = compare(tmp_path / "models", *words, check=False)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "models").exists()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two variants, two seeds and both twins, done: by the test processes together, if there are several."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models"
    words = ("--vary=model.norm.kind=rmsnorm,layernorm", "--seeds=2", "--name=norms", "--question=Which?", *TINY)
    return folder, words, compare(folder, *words)


@pytest.mark.slow
def test_a_study_ends_with_a_verdict_and_its_pages(study):
    folder, _, done = study
    assert "layernorm: " in done.stdout and "8/8 runs" in done.stdout
    runs = {path.parent.name for path in (folder / "norms").glob("*/config.json")}
    assert len(runs) == 8 and "rmsnorm-torch-seed0" in runs
    page, text = ((folder / "norms" / f"report.{end}").read_text() for end in ("html", "md"))
    assert "Which?" in page and "Which?" in text and "layernorm" in text


@pytest.mark.slow
def test_the_same_command_repeats_nothing_and_writes_the_same_page(study):
    folder, words, _ = study
    before = (folder / "norms" / "report.md").read_text()
    times = {path: path.stat().st_mtime_ns for path in (folder / "norms").glob("*/metrics.jsonl")}
    compare(folder, *words)
    assert (folder / "norms" / "report.md").read_text() == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
def test_the_twins_of_a_seed_end_alike_and_the_floor_says_how_much(study):
    folder, _, _ = study
    losses = {
        path.parent.name: [json.loads(line)["loss"] for line in path.open() if '"eval"' in line][-1]
        for path in (folder / "norms").glob("*/metrics.jsonl")
    }
    for name, loss in losses.items():
        assert loss == pytest.approx(losses[name.replace("torch", "flax")], abs=1e-4)
    assert "rounding floor" in (folder / "norms" / "report.md").read_text()


@pytest.mark.slow
def test_another_study_of_the_same_name_is_refused(study):
    folder, words, _ = study
    done = compare(folder, "--vary=model.norm.kind=rmsnorm,dyt", *words[1:], check=False)
    assert done.returncode == 2 and "it holds a study that differs in variants" in done.stderr


@pytest.mark.slow
def test_runs_that_are_there_are_compared(study):
    folder, _, _ = study
    runs = [f"--runs={path.parent}" for path in sorted((folder / "norms").glob("*/config.json"), reverse=True)]
    done = compare(folder, *runs, "--name=again")
    assert "layernorm" in done.stdout and (folder / "again" / "report.html").is_file()


@pytest.mark.slow
def test_a_dry_run_shows_the_plan_and_trains_nothing(study):
    folder, words, _ = study
    done = compare(folder, *words[:1], "--name=planned", "--match=parameters", "--dry-run", *TINY)
    assert "parameters" in done.stdout and "20 runs" in done.stdout and not (folder / "planned").exists()


@pytest.mark.slow
def test_each_variant_may_be_tuned_first(tmp_path):
    words = ("--vary=model.norm.kind=rmsnorm,layernorm", "--seeds=1", "--frameworks=torch", "--name=tuned")
    compare(tmp_path, *words, "--tune=optim.lr=1e-4..1e-2", "--trials=2", *TINY)
    study = json.loads((tmp_path / "tuned" / "study.json").read_text())
    assert study["tuned"] and all(1e-4 <= fields["optim.lr"] <= 1e-2 for fields in study["adjusted"].values())
    assert "best of 2 trials" in (tmp_path / "tuned" / "report.md").read_text()


@pytest.mark.exhaustive
def test_a_study_killed_ten_times_says_what_an_undisturbed_one_says(study, tmp_path):
    """Kills the study alone, whose runs go on, or all of it, at random times; then finishes it."""
    folder, words, done = study
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), f"--config.run.dir={tmp_path}", *words]
    chance, killed = random.Random(0), 0
    while killed < 10:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(chance.uniform(2, 20)) == 0
            shutil.rmtree(tmp_path / "norms")  # it finished before it was killed
            continue
        process.kill()
        process.wait()
        killed += 1
        if chance.random() < 0.5:
            subprocess.run(["pkill", "-KILL", "-f", f"run.dir={tmp_path}"], check=False)
    again = compare(tmp_path, *words)
    assert answers(again) == answers(done)
    assert measured(tmp_path / "norms") == measured(folder / "norms")


def answers(done: subprocess.CompletedProcess) -> list[str]:
    """Returns the sentences that a study ends with."""
    return [line for line in done.stdout.splitlines() if line.startswith("layernorm: ")]


def measured(folder: Path) -> tuple:
    """Returns what a study's report is made of, without times, speeds, memory and the command."""
    result = collect_finished(folder)
    cells = {(cell.variant, cell.framework, cell.seed): cell.evaluations for cell in result.cells}
    return result.variants, cells, [comparison.verdict for comparison in compare_all(result)]
