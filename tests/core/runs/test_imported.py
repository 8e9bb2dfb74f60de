"""Tests the folder of a run whose weights come from elsewhere."""

import shutil
from pathlib import Path

import pytest

from slm_core.runs import imported
from slm_core.runs.checkpoints import list_entries


def test_an_unfinished_import_loses_its_name_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step-00000000").mkdir(parents=True)
    named = []

    def removed(folder: Path, **options: bool) -> None:
        named.extend(list_entries(checkpoints))
        rmtree(folder, **options)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", removed)
    weights = imported.make_imported(tmp_path / "run")
    assert not named and not checkpoints.exists() and weights.is_relative_to(checkpoints)
