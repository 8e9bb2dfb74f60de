"""Mistakes that no comparison of small twins shows are found by tests of another kind: in a copy of the sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.unseen import UNSEEN

ROOT = Path(__file__).parents[2]
COPIED = ("slm_core", "slm_torch", "slm_flax", "parity", "configs", "tests")
FAULTS = {name: (kind, fault) for kind, faults in UNSEEN.items() for name, fault in faults.items()}
TESTS = sorted({(fault.test, fault.only) for _, fault in FAULTS.values()})


@pytest.fixture
def copy(tmp_path) -> Path:
    """Copies the sources, without what git ignores."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def outcome(folder: Path, test: str, only: str) -> tuple[int, str]:
    """Runs tests in a folder up to the first failure; returns pytest's exit status, and what it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:tests.resumed", "-k", only, test]
    command += ["-m", "not exhaustive and not gpu"] if only else []
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout[-3000:] + done.stderr[-1000:]


def test_every_mistake_has_its_place_once():
    for name, (_, fault) in FAULTS.items():
        for file, old, new in fault.edits:
            places = (ROOT / file).read_text(encoding="utf-8").count(old)
            assert places == 1, f"{name}: {file} has {old!r} {places} times: write the fault anew"
            assert old != new
    assert len(FAULTS) == sum(map(len, UNSEEN.values())), "two faults have the same name"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAULTS)
def test_a_test_of_another_kind_finds_a_mistake(name, copy, record_property):
    kind, fault = FAULTS[name]
    place = list(FAULTS).index(name)
    record_property("unseen", {"place": place, "kind": kind, "fault": name, "files": fault.files, "test": fault.test})
    for file, old, new in fault.edits:
        path = copy / file
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    status, told = outcome(copy, fault.test, fault.only)
    assert status == 1, f"{fault.test} does not find: {name}\n{told}"


@pytest.mark.exhaustive
@pytest.mark.parametrize(("test", "only"), TESTS)
def test_in_a_sound_copy_nothing_fails(test, only, copy):
    status, told = outcome(copy, test, only)
    assert status == 0, told
