"""The benchmark of saving as a user runs it, with a model that takes no time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--d_model=32", "--n_layers=1", "--vocab_size=64", "--seq_len=8")


def bench(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "benchmarks" / "saving.py"), *SMALL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_the_stall_is_a_share_of_the_save(twin: str):
    done = bench(f"--framework={twin}", "--repeats=1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{twin}, ") and lines[0].endswith("1 rounds, medians")
    assert lines[2].startswith("training stops for ") and lines[2].endswith("of the save")
    assert lines[4].startswith("updates per second: ") and " alone: " in lines[4]


def test_a_mistake_is_one_line():
    done = bench("--repeats=0")
    assert done.returncode == 2 and done.stderr == "error: --repeats=0 must be at least 1\n"
