"""File systems that lack something: locks, or syncing of folders."""

import errno
import fcntl
import os

import pytest

from slm_core.data import prepare
from slm_core.files import lock_file, sync, sync_tree
from slm_core.studies import claims
from slm_core.studies.claims import claim
from tests.core.fake_engine import BigramEngine, make_config


@pytest.fixture(params=[errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def no_locks(request, monkeypatch):
    def flock(file, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def no_folder_sync(monkeypatch):
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_lock_keeps_others_out(tmp_path):
    with open(tmp_path / "x", "w") as one, open(tmp_path / "x") as two:
        assert lock_file(one) is True and lock_file(two) is False and lock_file(two, shared=True) is False
    with open(tmp_path / "x", "w") as one, open(tmp_path / "x") as two:
        assert lock_file(one, shared=True) is True and lock_file(two, shared=True) is True


def test_a_run_trains_where_nothing_can_be_locked_or_synced(tmp_path, no_locks, no_folder_sync):
    from slm_core.training.loop import train

    config = make_config(tmp_path, steps=4)
    assert train(config, BigramEngine, "torch").finished
    assert train(config, BigramEngine, "torch").step == 4
    assert prepare(config.data).counts["train_tokens"]


def test_a_claim_without_locks_expires(tmp_path, no_locks, monkeypatch):
    assert claim(tmp_path, "run") and claim(tmp_path, "run") is None
    monkeypatch.setattr(claims, "EXPIRES", -1.0)
    assert claim(tmp_path, "run")


def test_a_sync_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch, no_folder_sync):
    (tmp_path / "x").write_text("x")
    sync_tree(tmp_path)

    def fsync(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        sync(tmp_path)
