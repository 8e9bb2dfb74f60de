"""scripts/evaluate.py measures the losses that training measured, in either twin, for trained and imported runs."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import scripts.evaluate
import scripts.generate
import slm_flax.trainer
import slm_torch.trainer
from slm_core.cli.command_line import main
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.data import load_tokenizer, save_tokenizer
from slm_core.data.tokenizers import Library
from slm_core.json_files import write_sealed
from slm_core.model.weights import write_weights
from slm_core.runs.imported import describe_imported, make_imported
from slm_core.runs.saved import load_run
from slm_core.runs.weights import run_weights
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
BUILD = {"torch": slm_torch.trainer.build, "flax": slm_flax.trainer.build}
RUNS = {
    "torch": {"data.tokenizer": "bpe", "data.vocab_size": 270},
    "flax": {"optim.kind": "schedule_free", "optim.schedule": "constant"},
}
"""{twin and name of a run: fields}."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each twin, and one that is imported from the PyTorch one."""
    folder = tmp_path_factory.mktemp("runs")
    text = "".join(f"the {i}th line, of {i % 5} kinds\n" for i in range(2000))
    (folder / "text.txt").write_text(text)
    (folder / "other.txt").write_text(text[::-1])
    common = {
        "data.source": "text", "data.path": str(folder / "text.txt"), "data.dir": str(folder / "data"),
        "run.dir": str(folder / "models"), "run.device": "cpu", "run.tensorboard": False, "optim.warmup_steps": 2,
        "train.steps": 6, "train.sample_every": 0,
    }  # fmt: skip
    for twin, fields in RUNS.items():
        config = with_values(load("configs/llama.py:tiny")[0], common | {"run.name": twin} | fields)
        train(config, BUILD[twin], twin)
    saved = load_run(folder / "models" / "torch")
    target = folder / "models" / "foreign"
    write_weights(make_imported(target), run_weights(saved).items(), 1 << 16)
    tokenizer = load_tokenizer(saved.folder / "tokenizer")
    save_tokenizer(Library(tokenizer.inner, "file"), target / "tokenizer")
    extra = {"model_type": "llama", "eos_token_id": None}
    describe_imported(target, saved.config, "torch", "foreign", saved.vocab_size, extra)
    return folder / "models"


@pytest.fixture
def call(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a script in this process and returns what it prints."""

    def call(script, *words: str) -> str:
        main(script.run, script.__doc__, script.FLAGS, takes_config=False, argv=[*words, "--device=cpu"])
        return capsys.readouterr().out

    return call


def measured(call, *words: str) -> dict:
    file = Path(words[0].partition("=")[2]) / "out.jsonl"
    printed = call(scripts.evaluate, *words, f"--json={file}")
    row = json.loads(file.read_text().splitlines()[-1])
    assert f"validation loss {row['loss']:.4f} nats/token, {row['bits_per_byte']:.4f} bits/byte" in printed
    assert np.exp(row["loss"]) == pytest.approx(row["perplexity"])
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * row["tokens"] / row["bytes"] / np.log(2))
    return row


@pytest.mark.parametrize("name", RUNS)
def test_both_twins_measure_what_training_measured(runs: Path, call, name: str):
    rows = read_metrics(runs / name / "metrics.jsonl")
    loss = [row["loss"] for row in rows if row["split"] == "eval"][-1]
    for twin in ("torch", "flax"):
        row = measured(call, f"--run={runs / name}", f"--framework={twin}")
        assert row["framework"] == twin and row["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_an_imported_run_is_the_same_function(runs: Path, call):
    words = (
        "--source=text",
        f"--path={runs.parent / 'other.txt'}",
        f"--data_dir={runs.parent / 'data'}",
        "--batches=2",
    )
    sizes = ("--batch_size=3", "--seq_len=20")
    trained, foreign = (measured(call, f"--run={runs / name}", *words, *sizes) for name in ("torch", "foreign"))
    assert foreign["loss"] == trained["loss"] and foreign["bytes"] == trained["bytes"] > foreign["tokens"]
    assert foreign["tokens"] == 2 * 3 * 20


def test_documents_can_be_kept_apart_in_the_evaluation_alone(runs: Path, call):
    folder = runs.parent / "documents"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"document {i}: " + f"the {i}th line\n" * (i % 7))
    words = ("--source=text", f"--path={folder}", f"--data_dir={runs.parent / 'data'}", "--val_fraction=0.5")
    whole, apart, joined = (
        measured(call, f"--run={runs / 'torch'}", *words, *masks)
        for masks in ([], ["--document_mask"], ["--nodocument_mask"])
    )
    assert joined["loss"] == whole["loss"] and joined["tokens"] == whole["tokens"]
    assert apart["tokens"] < whole["tokens"] and apart["loss"] != whole["loss"]  # the first of a document is no target


def test_an_imported_run_ends_its_text_at_its_eos(runs: Path, call):
    words = (f"--run={runs / 'foreign'}", "--prompt=the 1", "--max_tokens=12", "--seed=3")
    whole = call(scripts.generate, *words)
    assert whole == call(scripts.generate, f"--run={runs / 'torch'}", *words[1:])
    tokens = load_tokenizer(runs / "foreign" / "tokenizer").encode(whole.removesuffix("\n"))
    path = runs / "foreign" / "config.json"
    before = path.read_text()
    for ends in (tokens[-1], [tokens[-1], 9999], [9999]):
        write_sealed(path, json.loads(before) | {"imported": {"eos_token_id": ends}})
        stopped = call(scripts.generate, *words)
        assert whole.startswith(stopped.removesuffix("\n")) and (len(stopped) < len(whole)) == (ends != [9999])
    path.write_text(before)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--run=models/nothing-here"], "nothing-here"),
        (["--run=RUNS/flax", "--step=best"], "--step=best: RUNS/flax has no best checkpoint"),
        (["--run=RUNS/flax", "--step=7"], "--step=7: RUNS/flax has no checkpoint of it"),
        (["--run=RUNS/flax", "--seq_len=9999"], "--seq_len=9999"),
        (["--run=RUNS/flax", "--seq_len=-1"], "--seq_len=-1"),
        (["--run=RUNS/flax", "--batches=-1"], "--batches=-1"),
        (["--run=RUNS/flax", "--source=txt"], "data.source"),
        (["--run=RUNS/flax", "--source=text", "--path=nothing-here.txt"], "nothing-here.txt"),
        (["--run=RUNS/flax", "--source=text"], "--path"),
        (["--run=RUNS/flax", "--val_fraction=2"], "data.val_fraction"),
        (["--run=RUNS/flax", "--document_mask"], "data.document_mask=True"),
        (["--run=RUNS/flax", "--json=nowhere/out.jsonl"], "--json=nowhere/out.jsonl"),
    ],
)
def test_a_mistake_is_one_line(runs: Path, capsys: pytest.CaptureFixture, words: list[str], named: str):
    with pytest.raises(SystemExit) as caught:
        argv = [word.replace("RUNS", str(runs)) for word in words]
        main(scripts.evaluate.run, "", scripts.evaluate.FLAGS, takes_config=False, argv=argv)
    printed = capsys.readouterr()
    assert caught.value.code == 2 and not printed.out
    shown = printed.err.replace(str(runs), "RUNS")
    assert shown.startswith("error: ") and shown.count("\n") == 1 and named in shown


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("torch", "state/state-00001.safetensors"),
        ("flax", "state/state.json"),
        ("foreign", "weights/weights-00001.safetensors"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(
    runs: Path, capsys: pytest.CaptureFixture, tmp_path: Path, name: str, file: str
):
    copy = shutil.copytree(runs / name, tmp_path / name)
    damaged = load_run(copy).checkpoint / file
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(SystemExit):
        argv = [f"--run={copy}", "--prompt=x"]
        main(scripts.generate.run, "", scripts.generate.FLAGS, takes_config=False, argv=argv)
    printed = capsys.readouterr()
    assert (
        f"({file} has " in printed.err
        and "no checkpoint is whole" in printed.err
        and str(copy) in printed.err
        and printed.err.count("\n") == 1
    )


def test_as_a_command(runs: Path):
    command = [sys.executable, "scripts/evaluate.py", "--run", str(runs / "flax"), "--device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "validation loss" in done.stdout and "JAX" in done.stdout
