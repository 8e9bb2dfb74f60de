"""scripts/inspect_run.py writes a page about a run of either twin, of a task, of text, or imported."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scripts.inspect_run
import slm_flax.trainer
import slm_torch.trainer
from slm_core.cli.command_line import main
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.inference.evaluator import open_evaluator
from slm_core.json_files import write_sealed
from slm_core.model.weights import write_weights
from slm_core.runs.imported import describe_imported, make_imported
from slm_core.runs.saved import load_run
from slm_core.runs.weights import run_weights
from slm_core.studies.inspection.measure import heads_over_training
from slm_core.training.loop import train
from tests.core.studies.report.test_report import Page

ROOT = Path(__file__).parents[2]
BUILD = {"torch": slm_torch.trainer.build, "flax": slm_flax.trainer.build}
TINY = {
    "train.steps": 4, "train.checkpoint_every": 2, "train.keep_checkpoints": 9, "train.batch_size": 2,
    "train.eval_every": 0, "train.eval_batches": 1, "train.sample_every": 0, "run.device": "cpu",
    "run.tensorboard": False, "optim.warmup_steps": 2, "memory.remat": "none", "memory.loss_chunk": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A run of a task, one of text, and one that is imported without a tokenizer."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("".join(f"line number {i} says {i % 7} more than that\n" for i in range(9000)))
    text = {"data.source": "text", "data.path": str(folder / "text.txt"), "data.dir": str(folder / "data")}
    presets = {
        "task": ("configs/tasks.py:repetition", {"train.log_details_every": 2, "data.seq_len": 20}),
        "text": ("configs/gpt2.py:tiny", text | {"data.seq_len": 48, "optim.kind": "schedule_free",
                                                 "optim.schedule": "constant"}),
    }  # fmt: skip
    for name, (preset, fields) in presets.items():
        own = {"run.dir": str(folder), "run.name": name, "data.task_items": 4} if name == "task" else {}
        values = TINY | {"run.dir": str(folder), "run.name": name} | own | fields
        train(with_values(load(preset)[0], values), BUILD["torch"], "torch")
    saved = load_run(folder / "text")
    target = folder / "foreign"
    write_weights(make_imported(target), run_weights(saved).items(), 1 << 20)
    describe_imported(target, saved.config, "torch", "foreign", saved.vocab_size, {"model_type": "gpt2"})
    return folder


def inspected(folder: Path, *words: str) -> Page:
    """Runs the script in this process, and reads its page."""
    argv = [f"--run={folder}", "--device=cpu", *words]
    main(scripts.inspect_run.run, scripts.inspect_run.__doc__, scripts.inspect_run.FLAGS, takes_config=False, argv=argv)
    return Page(next((Path(w[6:]) for w in words if w.startswith("--out=")), folder / "inspect.html").read_text())


def test_a_run_of_a_task(runs, capsys):
    page = inspected(runs / "task")
    printed = capsys.readouterr()
    assert printed.out == f"written: {runs / 'task' / 'inspect.html'}\n"
    assert printed.err.splitlines()[-1] == "heads at checkpoint 2 of 2"
    assert "Inside the model after 4 updates" in page.texts["p"]
    assert "The prompt has 20 tokens: the first validation sequence of the task." in " ".join(page.texts["p"])
    titles = [title for title in page.texts["title"] if title]
    assert {"Induction score", "Residual stream", "Gradient", "Loss of the lens on the answers"} <= set(titles)
    assert any(re.fullmatch(r"s\d+", word) for word in page.texts["th"])


def test_an_older_checkpoint_and_another_file(runs, tmp_path):
    page = inspected(runs / "task", "--step=2", f"--out={tmp_path / 'page.html'}", "--prompt=s1 s2 s1")
    assert "Inside the model after 2 updates" in page.texts["p"]
    assert "The prompt has 3 tokens: given with --prompt." in " ".join(page.texts["p"])
    assert [th for th in page.texts["th"] if re.fullmatch(r"s\d+", th)] == ["s1", "s2", "s1"]


def test_heads_are_measured_with_the_weights_of_each_checkpoint(runs):
    saved, said = load_run(runs / "task"), []
    scores = heads_over_training(saved, open_evaluator(saved, "", "cpu"), said.append)
    assert list(scores) == [2, 4] and said == ["heads at checkpoint 1 of 2", "heads at checkpoint 2 of 2"]
    for path in scores[2]:
        assert abs(scores[2][path].previous - scores[4][path].previous).max() > 1e-6


def test_a_run_of_text_and_averages(runs):
    page = inspected(runs / "text")
    assert "a line of the validation text" in " ".join(page.texts["p"])
    assert "The run has no details.jsonl." in " ".join(page.texts["p"])
    assert {"l", "i", "n", "e", "␣"} <= set(page.texts["th"])


def test_an_imported_run_without_a_tokenizer_shows_numbers(runs):
    page = inspected(runs / "foreign")
    assert "Inside the imported model" in page.texts["p"]
    assert "random tokens, twice, because the run has no tokenizer" in " ".join(page.texts["p"])
    assert any(re.fullmatch(r"#\d+", word) for word in page.texts["th"])


@pytest.mark.slow
def test_the_other_twin_shows_the_same_numbers(runs, tmp_path):
    """The cells of all tables, to three digits, of a run that the other twin trained."""
    pages = [
        inspected(runs / "text", f"--framework={twin}", f"--out={tmp_path / twin}.html", "--prompt=line number 3 says")
        for twin in ("torch", "flax")
    ]
    cells = [[cell for cell in page.texts["td"] if re.fullmatch(r"[\d.]+", cell)] for page in pages]
    assert len(cells[0]) == len(cells[1]) > 20
    np.testing.assert_allclose(np.array(cells[0], float), np.array(cells[1], float), atol=2e-3)


WITHOUT_TORCH = """
import runpy, sys
class Refused:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"{name} is not for a Flax run")
sys.meta_path.insert(0, Refused())
runpy.run_path("scripts/inspect_run.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_run_of_the_flax_twin_as_a_command_needs_no_torch(runs):
    values = TINY | {"run.dir": str(runs), "run.name": "by-flax", "data.seq_len": 20, "data.task_items": 4}
    train(with_values(load("configs/tasks.py:repetition")[0], values), BUILD["flax"], "flax")
    command = [sys.executable, "-c", WITHOUT_TORCH, f"--run={runs / 'by-flax'}", "--device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "heads at checkpoint 2 of 2" and "Traceback" not in done.stderr
    assert "JAX" in (runs / "by-flax" / "inspect.html").read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--run=RUNS/nothing"], "RUNS/nothing: no such run"),
        (["--run=RUNS/task", "--step=3"], "--step=3: RUNS/task has no checkpoint of it; it has 2, 4"),
        (["--run=RUNS/task", "--out=page.png"], "--out=page.png must end in .html"),
        (["--run=RUNS/task", "--out=nowhere/page.html"], "there is no folder nowhere"),
        (["--run=RUNS/task", "--prompt=s1"], "--prompt='s1' has 1 tokens"),
        (["--run=RUNS/task", "--prompt="], "--prompt='' has 0 tokens"),
        (["--run=RUNS/task", "--prompt=hello"], "'hello' is not among the 33 words"),
        (["--run=RUNS/foreign", "--prompt=hello"], "imported without a tokenizer"),
        (["--run=RUNS/moved"], "or give --prompt=TEXT"),
        ([], "--run is missing"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(runs, capsys, words, named):
    if not (runs / "moved").exists():
        shutil.copytree(runs / "text", runs / "moved")
        config = json.loads((runs / "moved" / "config.json").read_text())
        config["config"]["data"] |= {"path": "gone.txt", "dir": str(runs / "no-data")}
        write_sealed(runs / "moved" / "config.json", config)
    argv = [word.replace("RUNS", str(runs)) for word in words]
    with pytest.raises(SystemExit) as caught:
        main(scripts.inspect_run.run, "", scripts.inspect_run.FLAGS, takes_config=False, argv=argv)
    printed = capsys.readouterr()
    assert caught.value.code == 2 and not printed.out
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert named.replace("RUNS", str(runs)) in printed.err


@pytest.mark.slow
def test_the_preset_forms_an_induction_head(tmp_path):
    """As docs/inspecting.md says: no head has it at first, and soon one does. The preset has 500 updates."""
    values = {"run.dir": str(tmp_path), "run.device": "cpu", "run.tensorboard": False, "run.name": "forms"}
    values |= {"train.steps": 320, "train.checkpoint_every": 80, "train.eval_every": 0, "train.log_details_every": 0}
    result = train(with_values(load("configs/tasks.py:repetition")[0], values), BUILD["torch"], "torch")
    assert result.eval_accuracy > 0.9
    page = inspected(tmp_path / "forms")
    (text,) = (text for text in page.texts["desc"] if text.startswith("Induction score"))
    ends = re.findall(r"layer (\d), head \d from (\d\.\d+) to (\d\.\d+)", text)
    assert all(float(first) < 0.1 for _, first, _ in ends)
    assert max(float(last) for layer, _, last in ends if layer == "1") > 0.4
