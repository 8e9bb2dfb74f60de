import shutil

import pytest

from slm_core import manifest
from slm_core.errors import UserError
from slm_core.runs import checkpoints
from slm_core.runs.checkpoints import (
    LoopState,
    latest_checkpoint,
    list_checkpoints,
    read_loop,
    remove_unfinished,
    save_checkpoint,
)
from slm_core.runs.fingerprints import Identity
from slm_core.runs.progress import Progress
from slm_core.runs.whole import newest_whole, set_damaged_aside

RUN = Identity("config", "data")


def loop(step):
    return LoopState(progress=Progress(step=step))


def save(root, step, keep=2, text="weights"):
    return save_checkpoint(root, step, lambda folder: (folder / "w").write_text(text), loop(step), keep, RUN)


def repair(root):
    remove_unfinished(root)
    set_damaged_aside(root, newest_whole(root, RUN))


def names(root):
    return [path.name for path in list_checkpoints(root)]


def test_a_checkpoint_holds_state_and_loop_and_is_the_latest(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    path = save(tmp_path, 7)
    assert path == tmp_path / "step-00000007" == latest_checkpoint(tmp_path)
    assert (path / "state" / "w").read_text() == "weights"
    assert read_loop(path) == loop(7)
    assert newest_whole(tmp_path, RUN) == path
    assert (tmp_path / "latest").read_text() == "step-00000007\n"


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path, keep):
    for step in range(1, 6):
        save(tmp_path, step, keep)
    assert names(tmp_path) == [f"step-{step:08d}" for step in range(6 - keep, 6)]
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 3, text="old")
    assert (save(tmp_path, 3, text="new") / "state" / "w").read_text() == "new"


class Crash(BaseException):
    """Stands for the process's end."""


def crash(*arguments, **options):
    raise Crash


CRASHES = {
    "while the engine saves": (None, None, "step-00000001"),
    "before the sync": (manifest, "sync_tree", "step-00000001"),
    "before the rename": (checkpoints.Path, "rename", "step-00000001"),
    "before the manifest": (checkpoints, "commit_folder", "step-00000001"),
    "before latest": (checkpoints, "write_atomically", "step-00000002"),
    "while pruning": (shutil, "rmtree", "step-00000002"),
}


@pytest.mark.parametrize("moment", CRASHES)
def test_a_crash_at_any_moment_leaves_a_complete_latest(tmp_path, monkeypatch, moment):
    where, name, expected = CRASHES[moment]
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        if where:
            patch.setattr(where, name, crash)
        with pytest.raises(Crash):
            write = lambda folder: (folder / "w").write_text("weights") if where else crash()  # noqa: E731
            save_checkpoint(tmp_path, 2, write, loop(2), 1, RUN)
        checkpoint = latest_checkpoint(tmp_path)
        assert (checkpoint / "state" / "w").read_text() == "weights" and read_loop(checkpoint)
    repair(tmp_path)
    assert latest_checkpoint(tmp_path).name == expected
    assert (tmp_path / "latest").read_text() == expected + "\n"
    assert not list(tmp_path.glob(".tmp-*"))
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-00000003"]


@pytest.mark.parametrize("pointer", ["", "step-00000009\n", "../elsewhere\n", None])
def test_a_lost_pointer_is_mended(tmp_path, pointer):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").unlink() if pointer is None else (tmp_path / "latest").write_text(pointer)
    assert latest_checkpoint(tmp_path).name == "step-00000002"


def test_deleting_the_newest_goes_back_to_the_one_before(tmp_path):
    save(tmp_path, 1)
    shutil.rmtree(save(tmp_path, 2))
    repair(tmp_path)
    assert latest_checkpoint(tmp_path).name == "step-00000001"


def test_a_broken_checkpoint_is_named_with_the_remedy(tmp_path):
    path = save(tmp_path, 1)
    (path / "loop.json").write_text("{")
    with pytest.raises(UserError, match="step-00000001/loop.json is broken .*; delete this checkpoint"):
        read_loop(path)
    with pytest.raises(UserError, match="no checkpoint is whole: step-00000001 is damaged .loop.json has 1 bytes"):
        newest_whole(tmp_path, RUN)


def test_the_newest_whole_checkpoint_is_used_and_the_damaged_one_kept_under_another_name(tmp_path, caplog, capsys):
    whole, damaged = save(tmp_path, 1), save(tmp_path, 2)
    (damaged / "state" / "w").write_text("weighty")
    assert newest_whole(tmp_path, RUN) == whole
    assert caplog.messages == [
        f"{tmp_path}: step-00000002 is damaged (state/w has changed: its checksum differs); step-00000001 is used"
    ]
    set_damaged_aside(tmp_path, whole)
    assert "renamed to damaged-step-00000002" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-00000002", "latest", "step-00000001"]
    assert (tmp_path / "latest").read_text() == "step-00000001\n"


def test_checkpoints_that_were_all_deleted_are_missed(tmp_path):
    shutil.rmtree(save(tmp_path, 1))
    with pytest.raises(UserError, match="latest: holds 'step-00000001.*', the newest checkpoint is gone; put"):
        newest_whole(tmp_path, RUN)
