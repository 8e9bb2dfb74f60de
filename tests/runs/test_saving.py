"""A run whose checkpoints are written beside training is, bit for bit, one that waits for them, in both twins."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slm_core.config import Config, Data, Model, Optim, Run, Train
from slm_core.runs.checkpoints import list_checkpoints, read_loop
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics

MEASURED = {"tokens_per_second", "peak_memory_bytes"}


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "flax"])
def test_a_run_is_the_same_with_and_without_saving_beside_it(tmp_path: Path, framework: str):
    """A checkpoint after each update, of a state of 12 MB: each is under way while the next update writes over it."""
    (tmp_path / "text.txt").write_text("".join(f"line {i}: {i * i} squared, {i % 7} left over\n" for i in range(3000)))
    config = Config(
        model=Model(d_model=128, n_layers=4, dropout=0.1),
        data=Data(source="text", path=str(tmp_path / "text.txt"), split="tail", seq_len=16, dir=str(tmp_path / "data")),
        optim=Optim(warmup_steps=3),
        train=Train(
            steps=10, batch_size=2, log_every=1, eval_every=4, eval_batches=2, checkpoint_every=1, keep_checkpoints=99,
            sample_every=6, sample_tokens=8, keep_best=True,
        ),
        run=Run(dir=str(tmp_path / "models"), device="cpu"),
    )  # fmt: skip
    beside, waiting = (_run(config, framework, f"beside-{value}", value) for value in (True, False))
    (folder, state), (other, expected) = beside, waiting
    assert _curve(folder) == _curve(other)
    assert state.keys() == expected.keys()
    for name in state:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)
    pairs = list(zip(*(list_checkpoints(each / "checkpoints") for each in (folder, other)), strict=True))
    assert len(pairs) == 10
    for a, b in pairs:
        assert a.name == b.name and read_loop(a).progress == read_loop(b).progress
        assert _bytes(a / "state") == _bytes(b / "state"), a.name


def _run(config: Config, framework: str, name: str, beside: bool) -> tuple[Path, dict[str, np.ndarray]]:
    engines = []

    def build(config: Config, vocab_size: int, weights: object):
        engines.append(importlib.import_module(f"slm_{framework}.trainer").build(config, vocab_size, weights))
        return engines[-1]

    result = train(replace(config, run=replace(config.run, name=name, async_saving=beside)), build, framework)
    return result.folder, engines[0].export_state()


def _curve(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in read_metrics(folder / "metrics.jsonl")]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
