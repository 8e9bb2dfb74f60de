"""Preparation: it is found again, resumes, runs on any number of cores and twice at once, and is refused clearly."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from slm_core.config import Data
from slm_core.data import chunks, encode, prepare, sample, save_tokenizer, scan
from slm_core.data.dataset import TextDataset
from slm_core.data.tokenizers import train_bpe
from slm_core.errors import UserError
from slm_core.files import lock_file

module = sys.modules["slm_core.data.build"]


@pytest.fixture
def text(tmp_path):
    """A text file of 2,000 different lines."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {i} of the book, café {i * i}\n" for i in range(2000)), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path, text):
    """Makes a Data section for the text file."""

    def make(**fields) -> Data:
        return Data(**({"source": "text", "path": str(text), "dir": str(tmp_path / "data"), "seq_len": 16} | fields))

    return make


def folder_of_documents(folder, count, start=0):
    folder.mkdir(exist_ok=True)
    for i in range(start, start + count):
        (folder / f"{i:05d}.txt").write_text(f"document {i} says {i * 7919}.\n" * 3)
    return folder


def contents(dataset: TextDataset, split: str) -> str:
    return dataset.tokenizer.decode(dataset.tokens(split))


def test_the_default_is_the_standard_library(tmp_path):
    dataset = prepare(Data(dir=str(tmp_path)), progress=False)
    assert dataset.folder.parent == tmp_path
    assert dataset.folder.name == f"stdlib-byte-{dataset.fingerprint}"
    assert 5e6 < dataset.counts["train_tokens"] < 5e7
    assert 0.03 < dataset.counts["validation_tokens"] / dataset.counts["train_tokens"] < 0.25
    assert dataset.tokens("train").dtype == np.uint8
    assert prepare(Data(dir=str(tmp_path)), progress=False).folder == dataset.folder


def test_tail_is_exact(data):
    dataset = prepare(data(tokenizer="char", split="tail"), progress=False)
    whole = Path(data().path).read_text(encoding="utf-8")
    cut = int(len(whole.encode()) * 0.9)
    assert contents(dataset, "train") + contents(dataset, "validation") == whole
    assert abs(len(contents(dataset, "train").encode()) - cut) <= 1
    assert dataset.vocab_size == len(set(whole))
    assert dataset.counts["bytes"] == dataset.counts["train_bytes"] + dataset.counts["validation_bytes"]


def test_hash_loses_nothing_and_shares_nothing(data):
    dataset = prepare(data(), progress=False)
    whole = Path(data().path).read_text(encoding="utf-8").splitlines()
    train, validation = contents(dataset, "train").splitlines(), contents(dataset, "validation").splitlines()
    assert sorted(train + validation) == sorted(whole)
    assert not set(train) & set(validation)
    assert 0.03 < len(validation) / len(whole) < 0.2


def test_new_documents_move_none_of_the_old(data, tmp_path):
    folder = folder_of_documents(tmp_path / "docs", 300)
    before = prepare(data(path=str(folder)), progress=False)
    folder_of_documents(folder, 100, start=300)
    after = prepare(data(path=str(folder)), progress=False)
    assert after.fingerprint != before.fingerprint
    for side in ("train", "validation"):
        old, new = (set(contents(d, side).split("\0")) for d in (before, after))
        assert old <= new
    assert after.counts["documents"] == 400
    assert after.tokens("train")[-1] == after.tokens("validation")[-1] == 0


def test_a_copy_with_other_times_is_found_by_its_content(data, text, tmp_path, monkeypatch):
    first = prepare(data(), progress=False)
    shutil.copy(text, tmp_path / "copy.txt")
    os.utime(text, ns=(1, 1))
    monkeypatch.setattr(module, "encode", lambda *_: pytest.fail("it was encoded again"))
    assert prepare(data(), progress=False).folder == first.folder
    assert prepare(data(path=str(tmp_path / "copy.txt")), progress=False).fingerprint == first.fingerprint
    monkeypatch.setattr(module, "scan", lambda *_: pytest.fail("it was read again"))
    assert prepare(data(), progress=False).folder == first.folder


def test_every_setting_that_changes_tokens_changes_the_fingerprint(data, text, tmp_path):
    save_tokenizer(train_bpe([text.read_text()], 280), tmp_path)
    variants = [
        data(),
        data(tokenizer="char"),
        data(tokenizer="bpe", vocab_size=300),
        data(tokenizer="bpe", vocab_size=310),
        data(tokenizer=f"file:{tmp_path / 'tokenizer.json'}"),
        data(split="tail"),
        data(val_fraction=0.2),
    ]
    datasets = [prepare(variant, progress=False) for variant in variants]
    assert len({dataset.fingerprint for dataset in datasets}) == len(variants)
    assert [d.vocab_size for d in datasets[2:5]] == [300, 310, 280]
    assert datasets[2].tokens("train").dtype == np.uint16
    lines = set(text.read_text().splitlines())
    for dataset in datasets[:5]:
        assert set(contents(dataset, "train").splitlines()) < lines
    text.write_text(text.read_text() + "one more line\n")
    assert prepare(data(), progress=False).fingerprint != datasets[0].fingerprint


@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_an_interrupted_preparation_goes_on(data, tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4096)
    whole = prepare(data(tokenizer=tokenizer, vocab_size=300, dir=str(tmp_path / "whole")), progress=False)
    read, encoded = [], []
    for calls, place, name in ((read, scan, "_scan_chunk"), (encoded, encode, "_encode_chunk")):
        monkeypatch.setattr(place, name, interrupting(getattr(place, name), calls, after=6))
    asked = data(tokenizer=tokenizer, vocab_size=300)
    interruptions = 0
    while True:
        try:
            resumed = prepare(asked, progress=False)
            break
        except KeyboardInterrupt:
            interruptions += 1
            assert not list((tmp_path / "data").glob("book-*"))
    total = len(list(chunks.text_chunks([chunks.Entry(asked.path, "", os.path.getsize(asked.path))], True)))
    assert total > 12
    assert interruptions == 2 * (total // 6) or interruptions > 2
    assert len(read) == len(encoded) == total
    assert resumed.fingerprint == whole.fingerprint
    for side in ("train", "validation"):
        assert np.array_equal(resumed.tokens(side), whole.tokens(side))
    assert not list((tmp_path / "data" / ".partial").iterdir())


def interrupting(function, calls, after):
    """Wraps a function to raise Ctrl-C once in every `after` + 1 calls; `calls` counts the finished ones."""
    state = {"left": after}

    def wrapped(task):
        if state["left"] == 0:
            state["left"] = after
            raise KeyboardInterrupt
        state["left"] -= 1
        calls.append(task)
        return function(task)

    return wrapped


def test_a_crash_between_writing_and_noting_is_undone(data, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4096)
    whole = prepare(data(dir=str(tmp_path / "whole")), progress=False)
    monkeypatch.setattr(encode, "_encode_chunk", interrupting(encode._encode_chunk, [], after=6))
    with pytest.raises(KeyboardInterrupt):
        prepare(data(), progress=False)
    partial = next((tmp_path / "data" / ".partial").iterdir())
    with open(partial / "dataset" / "train.bin", "ab") as file:
        file.write(b"half a chunk")
    with open(partial / "encoded.jsonl", "a") as file:
        file.write('{"chunk": 6, "train_st')
    monkeypatch.undo()
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4096)
    assert np.array_equal(prepare(data(), progress=False).tokens("train"), whole.tokens("train"))


@pytest.mark.parametrize("place", ["manifest.json.tmp", "tokenizer/kind.json"])
def test_what_a_crash_left_in_the_folder_is_not_part_of_the_dataset(data, tmp_path, monkeypatch, place):
    """It would be listed among the files, and the dataset then counts as damaged for ever."""

    def crash(built, folder, manifest):
        (built / place).write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_publish", crash)
        with pytest.raises(KeyboardInterrupt):
            prepare(data(), progress=False)
    dataset = prepare(data(), progress=False)
    assert set(dataset.manifest["files"]) == {"tokenizer/kind.json", "train.bin", "validation.bin"}
    assert prepare(data(), progress=False).fingerprint == dataset.fingerprint


def test_work_that_a_crash_left_after_the_end_is_removed(data, tmp_path):
    folder = prepare(data(), progress=False).folder
    signature = json.loads((folder / "manifest.json").read_text())["signatures"][0]
    left = module.work_folder(data(), signature) / "unpacked"
    left.mkdir(parents=True)
    with open(Path(data().dir) / ".locks" / signature[:12], "w") as file:
        assert lock_file(file)
        prepare(data(), progress=False)
        assert left.exists()  # the process with the lock is at work there
    assert prepare(data(), progress=False).folder == folder and not left.parent.exists()


def test_many_processes_give_the_same_tokens(data, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 16384)
    asked = {"tokenizer": "bpe", "vocab_size": 300}
    one = prepare(data(**asked), progress=False)
    monkeypatch.setattr(module, "_SMALL", dict.fromkeys(module._SMALL, 0))
    monkeypatch.setattr(module, "cores", lambda: 2)
    many = prepare(data(**asked, dir=str(tmp_path / "many")), progress=False)
    assert many.fingerprint == one.fingerprint
    assert np.array_equal(many.tokens("train"), one.tokens("train"))


def test_two_at_the_same_time(data):
    asked = data()
    code = f"from slm_core.config import Data; from slm_core.data import prepare; print(prepare({asked!r}).fingerprint)"
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.getcwd()}
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in pair]
    assert outputs[0] == outputs[1] != b""
    assert outputs[0].decode().strip() == prepare(asked, progress=False).fingerprint


def test_the_manifest_says_what_it_is(data):
    dataset = prepare(data(), progress=False)
    manifest = json.loads((dataset.folder / "manifest.json").read_text())
    assert manifest["fingerprint"] == dataset.fingerprint
    assert manifest["dtype"] == "uint8"
    assert manifest["source"]["path"] == data().path
    assert manifest["counts"]["documents"] == 1
    assert manifest["versions"]["numpy"] == np.__version__
    size = (dataset.folder / "train.bin").stat().st_size
    assert size == manifest["counts"]["train_tokens"] == len(dataset.tokens("train"))


def test_a_damaged_dataset_is_named(data):
    dataset = prepare(data(), progress=False)
    with open(dataset.folder / "train.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="train.bin has .* bytes instead of"):
        prepare(data(), progress=False)


def test_a_dataset_that_is_removed_while_it_is_used_is_one_line(data):
    dataset = prepare(data(), progress=False)
    windows, first = dataset.windows("train", 16), dataset.windows("train", 16)[0]
    shutil.rmtree(dataset.folder)
    assert np.array_equal(windows[0], first)  # what is open stays
    with pytest.raises(UserError, match="validation.bin was removed meanwhile; run the same command again"):
        dataset.opening(3)


def test_too_short_and_skewed_sources_are_refused(data, tmp_path):
    (tmp_path / "short.txt").write_text("only a few words\n" * 100)
    with pytest.raises(UserError, match=r"data.seq_len=1000: the validation split .* a window takes 1001"):
        prepare(data(path=str(tmp_path / "short.txt"), seq_len=1000), progress=False)
    folder = folder_of_documents(tmp_path / "few", 2)
    with pytest.raises(
        UserError, match=r"data.path=.*: none of its 2 documents falls into validation .* data.split=tail"
    ):
        prepare(data(path=str(folder), val_fraction=0.0001), progress=False)
    assert not list((tmp_path / "data" / ".partial").iterdir())


def test_a_folder_that_cannot_be_written_is_named(data, text):
    with pytest.raises(UserError, match="data.dir=.*cannot write there"):
        prepare(data(dir=str(text / "data")), progress=False)


def test_plain_lines_without_a_terminal(data, capsys):
    prepare(data())
    output = capsys.readouterr().err
    assert "prepared" in output
    assert "\x1b" not in output
    prepare(data())
    assert capsys.readouterr().err == ""


def test_a_bpe_of_a_large_source_learns_from_a_bounded_sample(data, monkeypatch, capsys):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4096)
    whole = prepare(data(tokenizer="bpe", vocab_size=300), progress=False)
    assert whole.manifest["bpe_sample_bytes"] == whole.counts["train_bytes"]
    for bound in ("SAMPLE", "DISTINCT"):
        monkeypatch.setattr(sample, bound, 8000)
        sampled = prepare(data(tokenizer="bpe", vocab_size=301 + len(bound)))
        assert 8000 <= sampled.manifest["bpe_sample_bytes"] < whole.manifest["bpe_sample_bytes"] * 0.6
        assert "trained the tokenizer on a sample" in capsys.readouterr().err
        assert sampled.counts["train_bytes"] == whole.counts["train_bytes"]
        monkeypatch.setattr(sample, bound, 1 << 30)
