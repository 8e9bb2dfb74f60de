"""A run that is stopped and continued is the run that was never stopped, in both twins."""

import importlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slm_core.config import Config, Data, Memory, Model, Optim, Run, Train
from slm_core.loop import train
from slm_core.metrics import read_metrics

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

    def build(config: Config, vocab_size: int):
        engine = importlib.import_module(f"slm_{framework}.trainer").build(config, vocab_size)
        plain = engine.train_step

        def train_step(tokens, lr, step):
            if step == stop_in:
                os.kill(os.getpid(), signal.SIGINT)
            return plain(tokens, lr, step)

        engine.train_step = train_step
        engines.append(engine)
        return engine

    result = train(replace(config, run=replace(config.run, name=name)), build, framework)
    return result, engines[0]


def curve(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_interrupted_run_equals_the_uninterrupted_one(config: Config, framework: str):
    whole, engine = run(config, framework, "whole")
    expected = engine.export_state()
    assert whole.finished
    for stop_in in (0, 4, 10):
        stopped, _ = run(config, framework, f"stop-{stop_in}", stop_in)
        assert not stopped.finished and stopped.step == stop_in + 1
        resumed, engine = run(config, framework, f"stop-{stop_in}")
        assert resumed.finished
        assert curve(resumed.folder) == curve(whole.folder)
        for name, value in engine.export_state().items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        samples = [path.read_text() for path in sorted((resumed.folder / "samples").iterdir())]
        assert samples == [path.read_text() for path in sorted((whole.folder / "samples").iterdir())]
