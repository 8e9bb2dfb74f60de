"""On an NVIDIA GPU: both twins train the 124M preset within 6 GB, in float32 and float16, in the predicted memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parity.memory import planned
from slm_core.config import presets
from slm_core.config.fields import with_values
from slm_core.planner import predict

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
if not torch.cuda.is_available():
    pytest.skip("there is no NVIDIA GPU here", allow_module_level=True)

ROOT = Path(__file__).parents[2]
STEPS = 200


def train(folder: Path, twin: str, compute: str) -> tuple[list[dict], dict]:
    """Returns the lines of metrics and the run's config.json of a short run under the cap."""
    fields = {
        "run.dir": folder / "runs", "run.name": f"{twin}-{compute}", "run.device": "cuda", "data.dir": folder / "data",
        "precision.compute": compute, "train.steps": STEPS, "train.batch_size": 16, "optim.warmup_steps": 5,
        "train.log_every": 1, "train.eval_batches": 1, "train.sample_tokens": 8,
    }  # fmt: skip
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    script = ROOT / "scripts" / f"train_{twin}.py"
    subprocess.run([sys.executable, script, "--config", "configs/gpt2.py:124m", *words], check=True, cwd=ROOT)
    run = folder / "runs" / f"{twin}-{compute}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == "train"], json.loads((run / "config.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return {(t, c): train(folder, t, c) for t in ("torch", "flax") for c in ("float32", "float16")}


@pytest.mark.parametrize("compute", ["float32", "float16"])
def test_the_losses_of_the_twins_agree(runs, compute):
    a, b = runs["torch", compute][0], runs["flax", compute][0]
    tolerance = 2e-2 if compute == "float16" else 5e-3
    assert len(a) == len(b) == STEPS
    assert max(abs(x["loss"] - y["loss"]) for x, y in zip(a, b, strict=True)) < tolerance
    assert [x["skipped"] for x in a] == [y["skipped"] for y in b]


@pytest.mark.parametrize("compute", ["float32", "float16"])
@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_the_peak_is_what_was_predicted(runs, twin, compute):
    lines, saved = runs[twin, compute]
    config = with_values(
        presets.load("configs/gpt2.py:124m")[0], {"precision.compute": compute, "train.batch_size": 16}
    )
    config = with_values(config, saved["resolved"])
    predicted = predict(config, saved["data"]["vocab_size"], planned(twin)).update
    peak = max(line["peak_memory_bytes"] for line in lines)
    assert peak < 6e9
    assert predicted == pytest.approx(peak, rel=0.1)
