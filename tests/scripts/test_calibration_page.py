"""scripts/pages/calibration.py reads finished studies, and says what is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from slm_core.errors import UserError
from slm_core.studies.collect import collect_finished
from slm_core.studies.study import Study, write_study
from slm_core.studies.variants import Variant

ROOT = Path(__file__).parents[2]


def test_a_study_that_is_not_there_is_one_line(tmp_path):
    words = [f"--itself={tmp_path}/none", f"--markdown={tmp_path}/page.md"]
    command = [sys.executable, str(ROOT / "scripts" / "pages" / "calibration.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "it holds no study" in done.stderr
    assert not (tmp_path / "page.md").exists()


def test_a_study_that_is_not_finished_names_its_command(tmp_path):
    study = Study(
        folder=tmp_path,
        preset="configs/default.py",
        overrides={},
        variants=(Variant("small", {}),),
        frameworks=("torch",),
        seeds=3,
        match="steps",
        threads=1,
        question="",
        command="uv run scripts/compare.py --study=mine.py",
    )
    write_study(study)
    with pytest.raises(UserError, match="3 of 3 runs are not finished; continue it: uv run scripts/compare.py --study"):
        collect_finished(tmp_path)
