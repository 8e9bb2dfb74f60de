"""docs/adding-a-component.md is true: its own blocks, under another name, add a component to a copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("slm_core", "slm_torch", "slm_flax", "parity", "scripts", "configs")
BLOCKS = dict(re.findall(r"^`(\S+\.py)`[^`]*?(?:`[^`]*`[^`]*?)*:\n\n```python\n(.*?)```", (
    ROOT / "docs" / "adding-a-component.md").read_text(), re.MULTILINE | re.DOTALL))  # fmt: skip
"""{file: what the page says it holds}."""


def renamed(text: str) -> str:
    for old, new in (("DynamicTanh", "Squash"), ("dyt", "squash"), ("alpha", "steepness")):
        text = text.replace(old, new)
    return text


def add_squash(root: Path) -> None:
    for path, block in BLOCKS.items():
        file = root / path
        if file.name == "dyt.py":
            file.with_name("squash.py").write_text(renamed(block))
            continue
        text = file.read_text()
        for line in block.splitlines():
            shared = '"dyt")' in line  # a field that others read, too
            new = line.replace('"dyt")', '"dyt", "squash")') if shared else f"{line}\n{renamed(line)}"
            text = text.replace(line, new, 1)
        file.write_text(text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    for package in COPIED:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    add_squash(root)
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)


def test_the_page_shows_the_lines_that_are_there():
    assert set(BLOCKS) == {
        *(f"{twin}/layers/{name}.py" for twin in ("slm_torch", "slm_flax") for name in ("dyt", "__init__")),
        "slm_core/config/model.py",
    }
    for path, block in BLOCKS.items():
        lines = (ROOT / path).read_text().splitlines()
        assert all(line in lines for line in block.splitlines()), path
    for twin in ("slm_torch", "slm_flax"):
        assert BLOCKS[f"{twin}/layers/dyt.py"] == (ROOT / twin / "layers" / "dyt.py").read_text()


def test_it_is_in_the_help_the_schema_and_the_validation(copy):
    shown = run(copy, "scripts/train_torch.py", "--help").stdout
    assert "squash" in shown and "steepness" in shown
    code = "from slm_core.config.fields import field_table as t; print(*t()['model.norm.kind'].option.choices)"
    assert run(copy, "-c", code).stdout.split()[-1] == "squash"
    unread = run(copy, "scripts/train_torch.py", "--config.model.norm.steepness=1")
    assert unread.returncode == 2 and len(unread.stderr.splitlines()) == 1
    assert "model.norm.steepness=1.0 is not read by model.norm.kind=rmsnorm" in unread.stderr
    negative = run(
        copy, "scripts/train_torch.py", "--config.model.norm.kind=squash", "--config.model.norm.steepness=-1"
    )
    assert negative.returncode == 2 and "must be more than 0" in negative.stderr


def test_it_is_in_the_suite(copy):
    code = (
        "from parity.cases import cases, select\n"
        "entries = cases()\n"
        "quick = [c for c in select(entries) if 'squash' in c.about]\n"
        "print(*(c.name for c in [*select(entries, 'squash'), *quick]))"
    )
    assert run(copy, "-c", code).stdout.split() == ["norm.kind=squash", "steepness=0.25", "norm.kind=squash"]


def test_the_planner_counts_it_as_another_and_says_so(copy):
    planned = run(copy, "scripts/plan_memory.py", "--config.model.norm.kind=squash")
    assert planned.returncode == 0, planned.stderr
    assert "predicted (model.norm.kind=squash counted as layernorm)" in planned.stdout


@pytest.mark.slow
def test_it_is_proven(copy):
    done = run(copy, "scripts/check_parity.py", "--component=squash", "--jobs=2", "--json=")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "norm.kind=squash" in done.stdout and "steepness=0.25" in done.stdout and "28 passed" in done.stdout
