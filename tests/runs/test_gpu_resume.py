"""On an NVIDIA GPU: a run that was begun on the CPU goes on there, in either twin, within what it says before."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
if not torch.cuda.is_available():
    pytest.skip("there is no NVIDIA GPU here", allow_module_level=True)

ROOT = Path(__file__).parents[2]
SHORT = {
    "model.d_model": 64, "model.n_layers": 2, "train.steps": 10, "train.eval_every": 10, "train.eval_batches": 2,
    "train.batch_size": 4, "optim.warmup_steps": 2, "train.sample_tokens": 4,
}  # fmt: skip


def train(twin: str, fields: dict) -> str:
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    script = ROOT / "scripts" / f"train_{twin}.py"
    return subprocess.run([sys.executable, script, *words], check=True, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("second", ["torch", "flax"])
def test_a_run_moves_from_the_cpu_to_the_gpu(tmp_path, second, precision):
    places = {"run.dir": tmp_path / "runs", "data.dir": tmp_path / "data"}
    train("torch", SHORT | places | {"run.device": "cpu", "run.name": "cpu", "precision.compute": "float32"})
    there = {"run.device": "cuda", "run.resume_from": tmp_path / "runs" / "cpu", "train.steps": 20}
    half = {"run.branch": "half", "precision.compute": precision} if precision == "float16" else {"run.name": "gpu"}
    printed = train(second, places | there | half)
    assert "device cpu -> cuda" in printed and "checked: validation loss" in printed
    assert ("e-02 nats" if precision == "float16" else "e-05 nats") in printed.partition("checked")[0]
