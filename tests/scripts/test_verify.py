"""scripts/verify.py: its table and exit codes."""

import shutil
from pathlib import Path

import pytest

import scripts.verify
from slm_core.cli.command_line import main
from slm_core.json_files import write_sealed
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, make_config
from tests.runs.damages import flip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return train(make_config(tmp_path, steps=3, checkpoint_every=1, keep_checkpoints=3), BigramEngine, "torch").folder


def verify(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    """Returns the exit code, and what is printed on stdout and on stderr."""
    capsys.readouterr()
    code = 0
    try:
        argv = scripts.verify.with_path(list(words))
        main(scripts.verify.run, "", scripts.verify.FLAGS, takes_config=False, argv=argv)
    except SystemExit as exit:
        code = exit.code
    return code, *capsys.readouterr()


def test_a_whole_run_and_its_dataset(run, capsys):
    code, table, errors = verify(capsys, str(run))
    assert code == 0 and not errors and table.endswith("parts are whole\n")
    rows = [line.split() for line in table.splitlines()]
    assert ["metrics.jsonl", "whole"] in rows and ["checkpoints/step-00000003", "whole"] in rows
    data = run.parents[1] / "data"
    for path in (data, next(data.glob("text-*")), run.parent, run / "checkpoints" / "step-00000003"):
        assert verify(capsys, str(path))[0] == 0


def test_what_is_damaged_is_named(run, capsys):
    flip(next((run / "checkpoints" / "step-00000002" / "state").iterdir()), 30)
    (run / "metrics.jsonl").unlink()
    code, table, errors = verify(capsys, f"--path={run}")
    assert code == 1 and not errors and table.endswith("2 of 7 parts damaged\n")
    assert (
        "has changed: its checksum differs" in table and "metrics.jsonl is missing, though the run has steps" in table
    )


def test_a_study_and_a_run_without_a_checkpoint(run, capsys):
    write_sealed(run.parent / "study.json", {"variants": []})
    shutil.rmtree(run / "checkpoints")
    code, table, _ = verify(capsys, str(run.parent))
    assert code == 0 and [line.split()[0] for line in table.splitlines()][:2] == ["study.json", "run/config.json"]
    flip(run.parent / "study.json", 5)
    assert verify(capsys, str(run.parent))[0] == 1


@pytest.mark.parametrize("make", ["nothing", "file", "empty"])
def test_a_wrong_path(tmp_path, capsys, make):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    code, table, errors = verify(capsys, str(tmp_path / make))
    assert code == 2 and not table and errors.startswith("error: ") and errors.count("\n") == 1
    assert verify(capsys)[0] == 2
