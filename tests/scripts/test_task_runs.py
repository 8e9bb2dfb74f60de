"""A run on a synthetic task trains, is measured on its answers, and continues questions, in either twin."""

import json

import pytest

import scripts.evaluate
import scripts.generate
import slm_flax.trainer
import slm_torch.trainer
from slm_core.cli.command_line import main
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.errors import UserError
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics

BUILD = {"torch": slm_torch.trainer.build, "flax": slm_flax.trainer.build}


def call(script, *words):
    main(script.run, script.__doc__, script.FLAGS, takes_config=False, argv=[*words, "--device=cpu"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns what training printed, and the folder of a run that has learnt to copy two symbols."""
    folder = tmp_path_factory.mktemp("runs")
    values = {
        "data.seq_len": 8, "data.task_items": 2, "data.task_symbols": 4, "model.d_model": 32, "model.n_layers": 1,
        "train.steps": 60, "train.eval_every": 30, "train.sample_every": 60, "train.sample_tokens": 2,
        "optim.lr": 1e-2, "optim.warmup_steps": 5, "run.dir": str(folder), "run.device": "cpu", "run.name": "copies",
    }  # fmt: skip
    result = train(with_values(load("configs/tasks.py:copying")[0], values), BUILD["torch"], "torch")
    assert result.eval_accuracy is not None
    return result


def test_evaluations_have_the_accuracy_of_the_answers(run):
    rows = [row for row in read_metrics(run.folder / "metrics.jsonl") if row["split"] == "eval"]
    assert rows[-1]["accuracy"] == run.eval_accuracy > 0.5  # chance is 1/4
    assert rows[-1]["tokens"] == 60 * 32 * 8


@pytest.mark.parametrize("twin", BUILD)
def test_either_twin_measures_what_training_measured(run, twin, capsys, tmp_path):
    file = tmp_path / "out.jsonl"
    call(scripts.evaluate, f"--run={run.folder}", f"--framework={twin}", f"--json={file}")
    printed, row = capsys.readouterr().out, json.loads(file.read_text())
    assert row["loss"] == pytest.approx(run.eval_loss, rel=1e-5) and row["accuracy"] == run.eval_accuracy
    assert (row["data"], row["tokens"], row["bytes"], row["bits_per_byte"]) == ("copying", 32 * 32 * 2, 0, None)
    assert f"nats/token, accuracy {row['accuracy']:.4f}\n2,048 answers" in printed and "bits/byte" not in printed


def test_a_run_continues_words(run, capsys):
    call(scripts.generate, f"--run={run.folder}", "--prompt=s1 s3 _ _ _ _ >", "--max_tokens=2", "--temperature=0")
    assert capsys.readouterr().out.startswith("s1 s3 _ _ _ _ > s")
    (sample,) = (run.folder / "samples").iterdir()
    words = sample.read_text().split()
    assert len(words) == 9 and words[6] == ">"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--source=task"], "--source=task: a task is for the runs"),
        (["--source=text", "--path=x.txt"], "its tokens are the words of its own task"),
    ],
)
def test_a_task_and_a_text_are_not_mixed(run, words, named):
    from slm_core.inference.text import open_text
    from slm_core.runs.saved import load_run

    given = dict(word.removeprefix("--").split("=") for word in words)
    with pytest.raises(UserError, match=named):
        open_text(load_run(run.folder), given, 8)
