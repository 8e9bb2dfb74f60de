"""One twin's command begins a run and the other's continues it, each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slm_core.training.metrics import read_metrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FIELDS = {
    "model.d_model": 32, "model.n_layers": 2, "model.dropout": 0.1, "data.source": "text", "data.seq_len": 16,
    "optim.kind": "muon", "optim.warmup_steps": 3, "train.steps": 14, "train.batch_size": 4, "train.log_every": 1,
    "train.eval_every": 6, "train.eval_batches": 2, "train.checkpoint_every": 6, "train.keep_checkpoints": 5,
    "train.sample_tokens": 4,
    "precision.params": "float64", "precision.compute": "float64", "run.device": "cpu",
}  # fmt: skip


@pytest.fixture
def fields(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"line {i}: {i * i} squared, {i % 7} left\n" for i in range(3000)))
    places = {"data.path": tmp_path / "text.txt", "data.dir": tmp_path / "data", "run.dir": tmp_path / "models"}
    return FIELDS | places


def train(twin: str, fields: dict, status: int = 0) -> str:
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, f"scripts/train_{twin}.py", *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def losses(run: Path) -> list[tuple]:
    return [(row["step"], row["split"], row["loss"]) for row in read_metrics(run / "metrics.jsonl")]


def interrupted(run: Path, step: int) -> Path:
    """Takes a run back to a step: its later checkpoints go, as if it had been stopped there."""
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if checkpoint.name > f"step-{step:08d}":
            shutil.rmtree(checkpoint)
    (run / "checkpoints" / "latest").write_text(f"step-{step:08d}\n")
    return run


@pytest.mark.parametrize(("first", "second"), [("torch", "flax"), ("flax", "torch")])
def test_a_run_goes_to_the_other_twin_and_back(tmp_path, fields, first, second):
    """Six steps in one twin, six in the other, two in the first again; the losses are those of one twin alone."""
    models, device = tmp_path / "models", {"run.dir": tmp_path / "models", "run.device": "cpu"}
    train(first, fields | {"run.name": "alone"})
    begun = interrupted(shutil.copytree(models / "alone", models / "begun"), 6)
    printed = train(second, device | {"run.resume_from": begun})
    there = interrupted(models / f"begun-{second}", 12)  # the automatic name
    assert f"framework {first} -> {second}: expected validation loss" in printed and "checked: " in printed
    printed = train(first, device | {"run.resume_from": there, "run.name": "back"})
    assert f"framework {second} -> {first}: expected validation loss" in printed
    assert json.loads((models / "back" / "config.json").read_text())["origin"]["framework"] == second
    alone, back = losses(models / "alone"), losses(models / "back")
    assert [row[:2] for row in back] == [row[:2] for row in alone]
    assert max(abs(a[2] - b[2]) for a, b in zip(back, alone, strict=True)) < 1e-10


def test_a_branch_in_the_other_twin(tmp_path, fields):
    models = tmp_path / "models"
    train("torch", fields | {"run.name": "trunk"})
    where = {"run.dir": models, "run.device": "cpu", "train.steps": 16}
    printed = train("flax", where | {"run.name": "trunk", "run.branch": "low", "optim.lr": 1e-5, "data.seq_len": 8})
    assert "branch of" in printed and "optim.lr 0.001 -> 1e-05" in printed and "cannot be compared" in printed
    assert losses(models / "low")[-1][0] == 16
    refused = train("flax", where | {"run.name": "trunk", "run.branch": "x", "model.n_layers": 3}, status=2)
    assert refused.startswith("error: model.n_layers: ") and refused.count("\n") == 1
