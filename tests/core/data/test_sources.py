"""Sources: the same documents from any format, in chunks that lose nothing; errors name the place of a mistake."""

import gzip
import json
import sys
import types

import pyarrow
import pyarrow.parquet
import pytest

from parity.fields import choices
from slm_core.config import Data
from slm_core.data import chunks, prepare, sources
from slm_core.errors import UserError

DOCUMENTS = [f"document {i}: naïve café {'é' * (i % 7)}\nend\n" for i in range(400)]


def write_jsonl(path, documents, field="text", opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps({"id": 1, field: document}, ensure_ascii=len(document) % 2 == 0) + "\n")


def write_parquet(path, documents, field="text"):
    pyarrow.parquet.write_table(pyarrow.table({field: documents}), path, row_group_size=150)


def texts(data: Data) -> list[str]:
    """The documents of a source, as its chunks give them."""
    texts = [b""]
    for chunk in sources.source_chunks(data, sources.find_files(data)):
        for piece in chunk.pieces():
            texts[-1] += piece.text
            if piece.last:
                texts.append(b"")
    return [document.decode() for document in texts[:-1]]


def data_for(path, source="text", **fields) -> Data:
    return Data(source=source, path=str(path), **fields)


def test_every_source_has_an_entry():
    assert [*sources.SOURCES, "task"] == list(choices("data.source"))


def test_files_are_documents_in_order_of_name(tmp_path):
    for i, document in enumerate(DOCUMENTS):
        (tmp_path / f"{i:04d}.md").write_text(document, encoding="utf-8")
    (tmp_path / "image.png").write_bytes(b"\0\1")
    (tmp_path / ".hidden.txt").write_bytes(b"\0\1")
    (tmp_path / "empty.txt").write_bytes(b"")
    assert texts(data_for(tmp_path)) == DOCUMENTS
    assert texts(data_for(tmp_path / "*.md")) == DOCUMENTS
    assert texts(data_for(tmp_path / "0007.md")) == [DOCUMENTS[7]]


@pytest.mark.parametrize("chunk", [100, 1000, 4 << 20])
def test_records_are_read_whole_however_chunks_fall(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk)
    write_jsonl(tmp_path / "a.jsonl", DOCUMENTS[:250])
    write_jsonl(tmp_path / "b.jsonl", DOCUMENTS[250:])
    assert texts(data_for(tmp_path, "jsonl")) == DOCUMENTS


def test_row_groups_are_read_in_order(tmp_path):
    write_parquet(tmp_path / "a.parquet", [*DOCUMENTS, None, ""], "body")
    assert texts(data_for(tmp_path / "a.parquet", "parquet", text_field="body")) == DOCUMENTS


@pytest.mark.parametrize("chunk", [1000, 50_000, 4 << 20])
def test_a_long_file_is_read_whole_however_chunks_fall(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk)
    whole = "".join(DOCUMENTS * 20) + "x" * 100_000 + "😀" * 50_000
    (tmp_path / "book.txt").write_text(whole, encoding="utf-8")
    assert texts(data_for(tmp_path / "book.txt")) == [whole]


def test_the_standard_library_is_mixed_and_without_tests():
    names = [entry.name for entry in sources.find_files(Data())]
    assert {"typing.py", "json/decoder.py", "asyncio/tasks.py"} <= set(names)
    assert not [name for name in names if {"test", "tests", "site-packages", "idle_test"} & set(name.split("/"))]
    assert names == [entry.name for entry in sources.find_files(Data())]
    assert names != sorted(names)


def test_every_source_prepares_to_the_same_tokens(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "rows.jsonl", DOCUMENTS)
    write_jsonl(tmp_path / "packed.jsonl.gz", DOCUMENTS, opener=gzip.open)
    write_parquet(tmp_path / "rows.parquet", DOCUMENTS)
    fake_hub(monkeypatch, [{"text": document} for document in DOCUMENTS])
    common = {"dir": str(tmp_path / "data"), "seq_len": 16}
    datasets = [
        prepare(Data(source=source, path=path, **common), progress=False)
        for source, path in [
            ("jsonl", str(tmp_path / "rows.jsonl")),
            ("jsonl", str(tmp_path / "packed.jsonl.gz")),
            ("parquet", str(tmp_path / "rows.parquet")),
            ("hf", "someone/rows"),
        ]
    ]
    for split in ("train", "validation"):
        streams = {dataset.tokenizer.decode(dataset.tokens(split)) for dataset in datasets}
        assert len(streams) == 1
        assert set(streams.pop().split("\0")) <= {*DOCUMENTS, ""}


class Rows:
    """Stands for a streamed dataset of the datasets library, whose connection breaks once after `breaks` rows."""

    def __init__(self, rows, breaks=None):
        self.rows, self.breaks = rows, breaks

    def skip(self, count):
        return Rows(self.rows[count:])

    def __iter__(self):
        for i, row in enumerate(self.rows):
            if i == self.breaks:
                raise ConnectionError("line is down")
            yield row


def fake_hub(monkeypatch, rows, breaks=None):
    opened = []

    def load_dataset(path, name, streaming):
        assert streaming
        opened.append(path)
        return {"train": Rows(rows, breaks if len(opened) == 1 else None)}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))


def test_a_broken_connection_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("slm_core.data.unpack.PART", 2000)
    fake_hub(monkeypatch, [{"text": document} for document in DOCUMENTS], breaks=200)
    data = Data(source="hf", path="someone/rows", dir=str(tmp_path), seq_len=16)
    with pytest.raises(UserError, match="reading stopped after .* rows .*line is down.*again to continue"):
        prepare(data, progress=False)
    assert prepare(data, progress=False).counts["documents"] == len(DOCUMENTS)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="uv sync --extra hf"):
        prepare(Data(source="hf", path="someone/rows", dir=str(tmp_path)), progress=False)


def refusal(tmp_path, path, source="text", **fields) -> str:
    with pytest.raises(UserError) as caught:
        prepare(data_for(path, source, dir=str(tmp_path / "data"), **fields), progress=False)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_mistakes_in_text_are_named_with_their_place(tmp_path):
    book = tmp_path / "book.txt"
    book.write_bytes(b"a" * 300_000 + b"\0" + b"a" * 10)
    assert "is binary (a NUL at byte 300000)" in refusal(tmp_path, book)
    book.write_bytes(b"line\n" * 100_000 + b"\xff\n" + b"line\n" * 100)
    assert "is not UTF-8 (byte 500000 is 0xff)" in refusal(tmp_path, book)
    book.write_bytes(b"")
    assert "it is empty" in refusal(tmp_path, book)
    assert "no such file or folder; check the path (did you mean book.txt?)" in refusal(tmp_path, tmp_path / "bok.txt")
    assert "no file matches it" in refusal(tmp_path, tmp_path / "*.md")
    assert "needs a file, a folder or a glob" in refusal(tmp_path, "")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(b"x")
    assert "holds no file for data.source=text" in refusal(tmp_path, tmp_path / "other")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    assert "damaged gzip" in refusal(tmp_path, tmp_path / "a.txt.gz")


def test_mistakes_in_records_are_named_with_their_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\nnot json\n')
    assert "the record at byte 17 of" in (message := refusal(tmp_path, path, "jsonl"))
    assert "is not JSON" in message
    path.write_text('{"txt": "fine"}\n')
    message = refusal(tmp_path, path, "jsonl")
    assert message.startswith("data.text_field='text'")
    assert message.endswith("(did you mean txt?)")
    path.write_text('{"text": 3}\n')
    assert "it holds int" in refusal(tmp_path, path, "jsonl")
    path.write_text('{"text": "a\\u0000b"}\n')
    assert "has a NUL character" in refusal(tmp_path, path, "jsonl")
    path.write_text('{"text": "a\\ud800b"}\n')
    assert "surrogate" in refusal(tmp_path, path, "jsonl")
    path.write_text('["a"]\n')
    assert "is a JSON list" in refusal(tmp_path, path, "jsonl")
    path.write_text('{"text": ""}\n')
    assert "it holds no text" in refusal(tmp_path, path, "jsonl")
    table = tmp_path / "rows.parquet"
    write_parquet(table, DOCUMENTS, "body")
    assert "it has body" in refusal(tmp_path, table, "parquet")
    table.write_text("not parquet")
    assert "cannot read" in refusal(tmp_path, table, "parquet")
