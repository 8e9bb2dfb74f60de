"""The manifest of a folder: what it lists, and what it says about files that are not as it lists them."""

import errno
import os

import pytest

from slm_core import manifest
from slm_core.errors import UserError
from slm_core.manifest import FileSum, check_export, commit_folder, damaged_files, file_sum, file_sums, read_manifest


@pytest.fixture
def folder(tmp_path):
    """A committed folder with a file, an empty file and a file in a folder."""
    (tmp_path / ".tmp" / "inside").mkdir(parents=True)
    for name, text in (("a.bin", b"a" * 3_000_000), ("empty", b""), ("inside/b", b"b")):
        (tmp_path / ".tmp" / name).write_bytes(text)
    commit_folder(tmp_path / ".tmp", tmp_path / "folder", "export", 7, "of config", "of data")
    return tmp_path / "folder"


def test_it_lists_every_file_and_says_what_the_folder_is(folder):
    read = read_manifest(folder, "")
    assert (read.kind, read.step, read.config, read.data) == ("export", 7, "of config", "of data")
    assert list(read.files) == ["a.bin", "empty", "inside/b"] and read.files == file_sums(folder)
    assert read.files["empty"] == FileSum(bytes=0, xxh3="2d06800538d394c2")  # as the paper's own program says
    assert file_sum(folder / "a.bin").bytes == 3_000_000
    assert not damaged_files(folder, read.files) and not list(folder.parent.glob(".tmp*"))


def test_a_crash_before_the_manifest_leaves_no_folder(tmp_path, monkeypatch):
    (tmp_path / ".tmp").mkdir()
    monkeypatch.setattr(manifest, "write_atomically", lambda path, text: os._nothing())
    with pytest.raises(AttributeError):
        commit_folder(tmp_path / ".tmp", tmp_path / "folder", "export", 7, "", "")
    assert not (tmp_path / "folder").exists()


def test_each_damage_is_one_text(folder):
    files = read_manifest(folder, "").files
    (folder / "a.bin").write_bytes(b"b" * 3_000_000)
    (folder / "empty").write_text("no longer")
    (folder / "inside" / "b").unlink()
    (folder / "inside" / "c").write_text("new")
    (folder / ".hidden").write_text("of the system")
    assert damaged_files(folder, files) == [
        "a.bin has changed: its checksum differs", "empty has 9 bytes instead of 0", "inside/b is missing",
        "inside/c is not one of its files",
    ]  # fmt: skip
    assert damaged_files(folder, files, quick=True, others=True) == [
        "empty has 9 bytes instead of 0", "inside/b is missing",
    ]  # fmt: skip


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(folder, monkeypatch):
    """A manifest without files would vouch for nothing."""

    def scandir(path):
        raise OSError(errno.EMFILE, "Too many open files", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match="Too many open files"):
        file_sums(folder)
    with pytest.raises(OSError, match="Too many open files"):
        commit_folder(folder, folder.with_name("new"), "checkpoint", 1, "config", "data")
    monkeypatch.undo()
    assert not folder.with_name("new").exists() and file_sums(folder.with_name("none")) == {}


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder):
    (folder / "a.bin").unlink()
    os.mkfifo(folder / "a.bin")
    assert damaged_files(folder, read_manifest(folder, "").files) == ["a.bin is not a file"]


def test_an_export_may_have_more_files_but_no_more_weights(folder):
    (folder / "README.md").write_text("mine")
    check_export(folder)
    (folder / "more.safetensors").write_text("")
    with pytest.raises(UserError, match="more.safetensors is not one of its files; export it again, or delete"):
        check_export(folder)
