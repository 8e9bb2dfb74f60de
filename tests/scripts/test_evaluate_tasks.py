"""scripts/evaluate.py --tasks gives the numbers that lm-evaluation-harness gives for the exported checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import scripts.evaluate
import slm_torch.trainer
from slm_core.cli.command_line import main
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.data import load_tokenizer
from slm_core.hf.run import export_run
from slm_core.inference.evaluator import open_evaluator
from slm_core.inference.harness import Adapter
from slm_core.inference.harness_tasks import evaluate, open_tasks
from slm_core.runs.saved import load_run
from slm_core.runs.weights import run_weights
from slm_core.training.loop import train

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "lm_eval"
TASKS = ",".join(str(FOLDER / f"{name}.yaml") for name in ("python_choice", "python_text", "python_word"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose texts differ, with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("runs")
    values = {
        "data.source": "text", "data.path": str(ROOT / "slm_core" / "inference"), "data.dir": str(folder / "data"),
        "data.tokenizer": "bpe", "data.vocab_size": 300, "data.seq_len": 48, "data.split": "tail",
        "run.dir": str(folder), "run.name": "run",
        "run.device": "cpu", "run.tensorboard": False, "optim.warmup_steps": 2, "model.init_std": 0.1, "train.steps": 6,
        "train.sample_every": 0,
    }  # fmt: skip
    return train(with_values(load("configs/llama.py:tiny")[0], values), slm_torch.trainer.build, "torch").folder


def script(run: Path, *words: str) -> None:
    main(scripts.evaluate.run, "", scripts.evaluate.FLAGS, takes_config=False, argv=[f"--run={run}", *words])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--tasks=x.yaml", "--source=text"], "--source=text is read only without --tasks"),
        (["--tasks=x.yaml", "--batch_size=3"], "--batch_size=3 is read only without --tasks"),
        (["--limit=3"], "--limit=3 is read only with --tasks"),
        (["--num_fewshot=0"], "--num_fewshot=0 is read only with --tasks"),
        (["--tasks=x.yaml", "--limit=0"], "--limit=0: must be at least 1"),
        (["--tasks=x.yaml", "--num_fewshot=-1"], "--num_fewshot=-1: must be at least 0"),
    ],
)
def test_a_flag_that_is_not_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], named: str
):
    assert named in refusal(tmp_path, capsys, words)


def refusal(run: Path, capsys: pytest.CaptureFixture, words: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        script(run, *words)
    printed = capsys.readouterr()
    assert caught.value.code == 2 and not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--tasks=nothing.yaml"], "--tasks=nothing.yaml: there is no such file"),
        (["--tasks=,"], "names no task"),
        (["--tasks=python_choic", f"--task_path={FOLDER}"], "did you mean python_choice?"),
        (["--tasks=x", "--task_path=nowhere"], "--task_path=nowhere: there is no such folder"),
        (["--tasks=BROKEN/data.yaml"], "BROKEN/data.yaml cannot be loaded (FileNotFoundError"),
        (["--tasks=BROKEN/settings.yaml"], "generation_kwargs.num_beams=4"),
    ],
)
def test_a_task_that_cannot_be_opened_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch, words: list[str], named: str
):
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(ROOT)
    text = (FOLDER / "python_word.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("configs/lm_eval/python_word", "configs/lm_eval/nothing"))
    (tmp_path / "settings.yaml").write_text(text.replace("do_sample: false", "num_beams: 4"))
    argv = [word.replace("BROKEN", str(tmp_path)) for word in words]
    assert named.replace("BROKEN", str(tmp_path)) in refusal(run, capsys, argv)


def test_both_twins_answer_as_the_harness_s_own_model_of_the_export(run: Path, tmp_path: Path, monkeypatch):
    """Log-likelihoods to 1e-4 nats, and the same texts and metrics. Some contexts are longer than the model's."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("accelerate", reason="the harness's own model needs it: uv pip install accelerate peft")
    from lm_eval.evaluator import evaluate as harness_evaluate
    from lm_eval.models.huggingface import HFLM

    monkeypatch.chdir(ROOT)
    saved = load_run(run)
    export_run(saved, run_weights(saved), tmp_path / "hf", "", "float32", lambda items, action: items)
    other = HFLM(pretrained=str(tmp_path / "hf"), device="cpu", dtype="float32", batch_size=4)
    expected = harness_evaluate(other, open_tasks(TASKS, "", 2), bootstrap_iters=0)
    tokenizer = load_tokenizer(saved.folder / "tokenizer")
    for twin in ("torch", "flax"):
        adapter = Adapter(open_evaluator(saved, twin, "cpu"), tokenizer, saved.config.data.seq_len, saved.tokens)
        assert (adapter.prefix, adapter.context) == (other.prefix_token_id, other.max_length)
        results = evaluate(adapter, open_tasks(TASKS, "", 2), log_samples=True)
        assert answers(results) == pytest.approx(answers(expected), abs=1e-4)
        assert texts(results) == texts(expected)
        for task, metric in (("python_choice", "acc"), ("python_choice", "acc_norm"), ("python_word", "exact_match")):
            assert results["results"][task][f"{metric},none"] == expected["results"][task][f"{metric},none"]
    lengths = [len(tokenizer.encode(sample["arguments"][0][0])) for sample in results["samples"]["python_choice"]]
    assert max(lengths) > adapter.context and len(set(texts(results))) > 3 and len(set(answers(results))) > 100


def answers(results: dict) -> list[float]:
    """The log-likelihood of each choice and of each text, and whether each choice is greedy."""
    choices = [pair for sample in results["samples"]["python_choice"] for pair in sample["filtered_resps"]]
    whole = [sample["filtered_resps"][0] for sample in results["samples"]["python_text"]]
    return [float(value) for pair in choices for value in pair] + [float(value) for value in whole]


def texts(results: dict) -> list[str]:
    return [sample["filtered_resps"][0] for sample in results["samples"]["python_word"]]


IN_A_PROCESS = """
import sys
from scripts.evaluate import FLAGS, main, run
main(run, "", FLAGS, takes_config=False)
loaded = [name for name in ("torch", "transformers", "jax", "lm_eval") if name in sys.modules]
print("loaded", loaded)
"""


def test_the_flax_twin_is_evaluated_without_pytorch(run: Path, tmp_path: Path):
    """As a command, with the harness: no PyTorch is imported, nothing is on stderr, and a line of JSON is written."""
    pytest.importorskip("lm_eval")
    words = ["--framework=flax", "--device=cpu", "--tasks=python_choice,python_word", f"--task_path={FOLDER}"]
    command = [sys.executable, "-c", IN_A_PROCESS, f"--run={run}", *words, "--limit=3", f"--json={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" requests")]
    assert not lines and "loaded ['jax', 'lm_eval']" in done.stdout
    row = json.loads((tmp_path / "out").read_text())
    assert row["framework"] == "flax" and row["n-samples"]["python_choice"] == {"original": 32, "effective": 3}
    for name in ("acc", "acc_norm"):
        value = row["results"]["python_choice"][f"{name},none"]
        assert f"python_choice: {name} {value:.4f} ± " in done.stdout
