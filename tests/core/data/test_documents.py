"""Documents inside sequences: marks where one begins, and sequences that begin with one."""

import numpy as np
import pytest

from slm_core.config import Config, Data
from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.data import Batches, prepare, validation_batches
from slm_core.data.documents import document_starts, packed_starts
from slm_core.errors import UserError
from slm_core.protocols import begins_document, count_targets, first_of_document, unscored

SEQ, END = 24, 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents of 3 to 60 bytes, one file each."""
    folder = tmp_path_factory.mktemp("texts")
    for i, length in enumerate(np.random.default_rng(0).integers(3, 60, 200)):
        (folder / f"{i:03d}.txt").write_text(chr(97 + i % 26) * int(length))
    return folder


def opened(folder, **values):
    data = dict(source="text", path=str(folder), dir=str(folder.with_name("data")), seq_len=SEQ) | values
    return prepare(Data(**data), progress=False)


def rows(dataset, split="train"):
    windows = dataset.windows(split, SEQ)
    return [windows[i] for i in range(len(windows))]


def plain(row):
    """The tokens of a row, without marks."""
    return np.where(row < 0, unscored(row), row) % 2**30


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_a_mark_is_where_a_document_begins_inside_a_row(folder, packing, split):
    marked, sound = (rows(opened(folder, packing=packing, document_mask=mask), split) for mask in (True, False))
    assert len(marked) == len(sound) and any(begins_document(row).any() for row in marked)
    for row, tokens in zip(marked, sound, strict=True):
        assert row.dtype == np.int32 and (tokens >= 0).all()
        np.testing.assert_array_equal(plain(row), tokens)
        np.testing.assert_array_equal(begins_document(row)[1:], tokens[:-1] == END)
        assert not begins_document(row)[0]
        assert count_targets(row[None]) == SEQ - (tokens[:-1] == END).sum()


@pytest.mark.parametrize("mask", [False, True])
def test_packed_rows_begin_with_documents_in_their_order(folder, mask):
    dataset = opened(folder, packing="documents", document_mask=mask)
    tokens, starts = dataset.tokens("train"), document_starts(dataset.tokens("train"), END)
    chosen = packed_starts(starts, SEQ, len(tokens))
    assert set(chosen) <= set(starts) and chosen[0] == 0 and (np.diff(chosen) >= SEQ).all()
    for row, start in zip(rows(dataset), chosen, strict=True):
        np.testing.assert_array_equal(plain(row), tokens[start : start + SEQ + 1])
    for start, after in zip(chosen, [*chosen[1:], len(tokens)], strict=True):  # no document between them is free
        between = starts[(starts >= start + SEQ) & (starts < after) & (starts + SEQ < len(tokens))]
        assert not len(between)


def test_validation_is_the_same_text_whatever_the_packing(folder):
    stream, packed = (opened(folder, packing=packing) for packing in ("stream", "documents"))
    for a, b in zip(*(validation_batches(dataset, SEQ, 4, 5, 0) for dataset in (stream, packed)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(rows(stream)) > len(rows(packed))


def test_an_epoch_has_every_packed_row_once_and_any_step_can_be_resumed(folder):
    dataset = opened(folder, packing="documents", document_mask=True)
    expected = sorted(map(tuple, rows(dataset)))
    batches = Batches(dataset, "train", SEQ, 1, seed=0)
    taken = [tuple(next(batches)[0]) for _ in range(2 * len(expected))]
    assert sorted(taken[: len(expected)]) == sorted(taken[len(expected) :]) == expected
    assert taken[: len(expected)] != taken[len(expected) :]
    for step in (0, 1, 7, len(expected) + 3):
        again = Batches(opened(folder, packing="documents", document_mask=True), "train", SEQ, 1, seed=0)
        again.restore({"next_index": step})
        assert tuple(next(again)[0]) == taken[step]
    parts = [Batches(dataset, "train", SEQ, 4, 0, index, 2) for index in range(2)]
    whole = next(Batches(dataset, "train", SEQ, 4, 0))
    assert sorted(map(tuple, whole)) == sorted(tuple(row) for part in parts for row in next(part))


def test_starts_are_found_in_pieces(monkeypatch):
    monkeypatch.setattr("slm_core.data.documents._PIECE", 3)
    tokens = np.array([5, 0, 0, 7, 7, 0, 8, 0])
    assert document_starts(tokens, 0).tolist() == [0, 2, 3, 6]
    assert packed_starts(np.array([0, 2, 3, 6]), 2, len(tokens)).tolist() == [0, 2]
    assert packed_starts(np.array([0, 2, 3, 6]), 8, len(tokens)).tolist() == []
    assert document_starts(tokens[:0], 0).tolist() == []


def test_what_packing_leaves_out_is_said(folder, capsys):
    data = Data(source="text", path=str(folder), dir=str(folder.with_name("data")), seq_len=SEQ, packing="documents")
    dataset = prepare(data)
    share = 1 - len(rows(dataset)) * SEQ / (len(dataset.tokens("train")) - 1)
    assert 0.1 < share < 0.6
    line = f"data.packing=documents leaves out {share:.0%} of the training tokens: ends of documents"
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "field"),
    [(dict(document_mask=True), "data.document_mask=True"), (dict(packing="documents"), "data.packing=documents")],
)
def test_text_that_nothing_tells_apart_is_refused(folder, tmp_path, values, field):
    (tmp_path / "one.txt").write_text("one document alone\n" * 300)
    with pytest.raises(UserError, match=f"{field}: one-.* has no end-of-document token, because it is a single doc"):
        prepare(Data(source="text", path=str(tmp_path / "one.txt"), dir=str(tmp_path / "data"), **values), False)
    tokenizer = tmp_path / "tokenizer.json"
    write_without_end(tokenizer)
    with pytest.raises(UserError, match=f"{field}: .* because data.tokenizer=file:.* has none; .* <|endoftext|>"):
        opened(folder, tokenizer=f"file:{tokenizer}", **values)


def write_without_end(path):
    import tokenizers

    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    inner.save(str(path))


@pytest.mark.parametrize("name", ["data.document_mask", "data.packing"])
def test_tasks_do_not_read_it(name):
    value = {"data.document_mask": True, "data.packing": "documents"}[name]
    config = with_values(Config(), {"data.source": "task", name: value})
    with pytest.raises(UserError, match=f"{name}.* is not read by data.source=task"):
        validate(config, {name})


def test_marks_are_below_every_other():
    tokens = np.array([0, 1, 255, 2**20 - 1], np.int32)
    marks = first_of_document(tokens)
    assert marks.dtype == np.int32 and begins_document(marks).all()
    assert not begins_document(np.concatenate([tokens, unscored(tokens), [-1]])).any()
    np.testing.assert_array_equal(plain(marks), tokens)
