"""The benchmarks of attention and of mixers as a user runs them, at contexts that take no time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--contexts=16", "--twins=PyTorch", "--rounds=1", "--head-dim=8")


def bench(*arguments: str, script: str = "attention.py") -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "benchmarks" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [(), ("--memory",)])
def test_a_table_has_a_row_per_context(tmp_path, measure):
    done = bench(*SMALL, "--kernels=dot_product,flash", *measure, f"--json={tmp_path / 'a.json'}")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["", "context", "twin", "dot_product", "flash", ""]
    assert [row[1].strip() for row in rows[2:]] == ["16"] and rows[2][4].strip()
    results = json.loads((tmp_path / "a.json").read_text())["results"]
    assert len(results) == 2 and all(len(result["values"]) == 1 for result in results)


def test_what_does_not_fit_is_left_out_with_the_reason():
    done = bench("--memory", "--contexts=1000000", "--twins=PyTorch", "--kernels=dot_product")
    assert done.returncode == 0 and "skipped: it may need" in done.stdout


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--kernels=flesh", "--kernels: 'flesh' is not one of dot_product, flash, fused (did you mean flash?)"),
        ("--contexts=1k", "--contexts=1k must be numbers of tokens"),
        ("--kv-heads=4", "--kv-heads=4 must divide --heads=6"),
        ("--rounds=0", "--rounds=0 must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(flag, message):
    done = bench(flag)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--mixers=rwkv", "--mixers: 'rwkv' is not one of linear, retnet,"),
        ("--contexts=0", "--contexts=0 must be numbers of tokens"),
        ("--head-dim=0", "--head-dim=0 must be at least 1"),
    ],
)
def test_a_mistake_in_the_benchmark_of_mixers_is_one_line(flag, message):
    done = bench(flag, script="mixers.py")
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr
