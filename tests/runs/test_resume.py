"""A run that is stopped and resumed equals a run that was never stopped, in both twins."""

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slm_core.config import Config, Data, Memory, Model, Optim, Run, Train
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics
from tests.tiers import some_slow

MEASURED = {"tokens_per_second", "peak_memory_bytes"}
STEPS = 12


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = "".join(f"line {i}: {i * i} squared, {i % 7} left over\n" for i in range(3000))
    (tmp_path / "text.txt").write_text(text)
    return Config(
        model=Model(d_model=32, n_layers=2, dropout=0.1),
        data=Data(source="text", path=str(tmp_path / "text.txt"), split="tail", seq_len=16, dir=str(tmp_path / "data")),
        optim=Optim(warmup_steps=3),
        train=Train(
            steps=STEPS, batch_size=4, micro_batch_size=2, log_every=1, eval_every=4, eval_batches=2,
            checkpoint_every=5, sample_every=6, sample_tokens=8,
        ),
        memory=Memory(remat="block", loss_chunk=7),
        run=Run(dir=str(tmp_path / "models"), device="cpu"),
    )  # fmt: skip


def run(config: Config, framework: str, name: str, stop_in: int | None = None):
    """Trains; asks for a stop during the update after `stop_in` completed ones. Returns the result and the engine."""
    engines = []

    def build(config: Config, vocab_size: int, weights: object):
        engine = importlib.import_module(f"slm_{framework}.trainer").build(config, vocab_size, weights)
        original = engine.train_step

        def train_step(tokens, lr, step):
            if step == stop_in:
                os.kill(os.getpid(), signal.SIGINT)
            return original(tokens, lr, step)

        engine.train_step = train_step
        engines.append(engine)
        return engine

    result = train(replace(config, run=replace(config.run, name=name)), build, framework)
    return result, engines[0]


def loss_curve(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("framework", some_slow(("torch", "flax"), "flax"))
def test_interrupted_run_equals_the_uninterrupted_one(config: Config, framework: str):
    whole, engine = run(config, framework, "whole")
    expected = engine.export_state()
    assert whole.finished
    for stop_in in (0, 4, 10):
        stopped, _ = run(config, framework, f"stop-{stop_in}", stop_in)
        assert not stopped.finished and stopped.step == stop_in + 1
        resumed, engine = run(config, framework, f"stop-{stop_in}")
        assert resumed.finished
        assert loss_curve(resumed.folder) == loss_curve(whole.folder)
        for name, value in engine.export_state().items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        samples = [path.read_text() for path in sorted((resumed.folder / "samples").iterdir())]
        assert samples == [path.read_text() for path in sorted((whole.folder / "samples").iterdir())]


PEAK = """
import importlib, resource, sys
from pathlib import Path
import numpy as np
from slm_core.config import Config, Data, Model, Run, Train

twin, before, after = sys.argv[1:]
config = Config(
    model=Model(d_model=512, n_layers=8), data=Data(seq_len=32), train=Train(batch_size=1),
    run=Run(device="cpu", threads=1),
)
engine = importlib.import_module(f"slm_{twin}.trainer").build(config, 8192)
if before:
    engine.restore(Path(before))
tokens = np.arange(33, dtype=np.int32)[None]
for step in range(2):
    engine.fetch(engine.train_step(tokens, 1e-3, step))
Path(after).mkdir()
engine.save(Path(after))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_resuming_takes_no_more_memory_than_starting(tmp_path: Path, framework: str):
    """Compares the peaks of processes that train 29M parameters, which scatter by 100 MB: a second copy would show."""
    state = 354 * 10**6

    def peak(before: str, after: str) -> int:
        command = [sys.executable, "-c", PEAK, framework, before, after]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        return int(done.stdout.split()[-1])

    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert peak("", first) + 0.6 * state > peak(first, second)
