"""scripts/generate.py continues a run of either twin with either twin."""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(script: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "scripts" / script, *words], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a function that trains a twin once, and returns the folder of its run."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text("".join(f"the {i}th line, of {i % 5} kinds\n" for i in range(2000)))

    @functools.cache
    def trained(twin: str) -> Path:
        done = command(
            f"train_{twin}.py", "--config", "configs/llama.py:tiny", "--config.data.source=text",
            f"--config.data.path={folder / 'text.txt'}", f"--config.data.dir={folder / 'data'}",
            f"--config.run.dir={folder / 'models'}", f"--config.run.name={twin}", "--config.run.device=cpu",
            "--config.optim.warmup_steps=2", "--config.train.steps=10",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert all(line.startswith("prepared ") for line in done.stderr.splitlines()), done.stderr
        return folder / "models" / twin

    return trained


@pytest.mark.slow
def test_every_twin_continues_every_run_with_the_same_text(run: Callable[[str], Path]):
    words = ("--prompt", "the 1", "--max_tokens=40", "--device=cpu")
    texts = {
        (trained, twin): command("generate.py", "--run", str(run(trained)), "--framework", twin, *words)
        for trained in ("torch", "flax")
        for twin in ("torch", "flax")
    }
    for names, done in texts.items():
        assert done.returncode == 0 and not done.stderr, (names, done.stderr)
        assert done.stdout.startswith("the 1") and len(done.stdout) > len("the 1")
    assert len({done.stdout for done in texts.values()}) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--run=models/nothing-here", "--prompt=x"], "nothing-here"),
        (["--prompt=x"], "--run"),
        (["--run=models/any", "--prompt=x", "--framework=tensorflow"], "--framework"),
        pytest.param(["--run=RUN", "--prompt="], "--prompt", marks=pytest.mark.slow),
        pytest.param(["--run=RUN", "--prompt=x", "--top_p=2"], "top_p", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_one_line(run: Callable[[str], Path], words: list[str], named: str):
    done = command("generate.py", *(f"--run={run('torch')}" if word == "--run=RUN" else word for word in words))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and named in done.stderr
    assert not done.stdout
