"""Any bytes as a data file, and any damage of a tokenizer file, give a dataset or one line."""

import contextlib
import gzip
import itertools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

from slm_core.config import Data
from slm_core.data import prepare
from slm_core.data.tokenizers import open_tokenizer, train_bpe
from tests.inputs.answers import answer, for_all, tiers
from tests.inputs.edits import NEW, edited, places

WORDS = st.sampled_from(
    ["the fox ", "naïve ", "\n", "\n\n", "日本 ", "a" * 400, "🦙", "\t", "0 1 2 ", "\x85", "\r\n", "\ufeff"]
)
TEXT = st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode())
BAD = st.sampled_from(
    [b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x1f\x8b", b"PAR1", b"{", b"[" * 3000, b"\n" * 50]
)
RECORDS = st.lists(
    st.sampled_from(
        [
            {"text": "the fox " * 30},
            {"text": ""},
            {"text": None},
            {"text": 3},
            {"text": ["a"]},
            {"txt": "a"},
            {},
            [],
            1,
            None,
        ]
        + [{"text": "\ud800"}, {"text": "\0"}, {"text": {"text": "a"}}]
    ),
    max_size=8,
).map(lambda records: "\n".join(map(json.dumps, records)).encode())
FILES = st.one_of(
    TEXT, RECORDS, st.lists(st.one_of(TEXT, RECORDS, BAD), max_size=4).map(b"".join), st.binary(max_size=60)
)
NAMES = st.sampled_from(["a.txt", "a.jsonl", "a.parquet", "a.txt.gz", "a.jsonl.gz", "a.md", "é.txt", "a b.txt", ".txt"])


def a_file(content: bytes, name: str, zipped: bool) -> bytes:
    return gzip.compress(content) if zipped and name.endswith(".gz") else content


@tiers(25, 60, 400)
def test_data_files(count):
    """Texts too short, damaged, of another kind or in a folder give a dataset of valid tokens, or one line."""
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        numbers = itertools.count()

        def check(content, name, zipped, source, tokenizer, whole_folder, split):
            place = Path(folder, str(next(numbers)))
            place.mkdir()
            file = place / name
            file.write_bytes(a_file(content, name, zipped))
            path = str(place if whole_folder else file)
            data = Data(
                source=source, path=path, tokenizer=tokenizer, vocab_size=260, seq_len=4, split=split, val_fraction=0.4,
                dir=str(place / "data"),
            )  # fmt: skip

            def use() -> None:
                dataset = prepare(data, progress=False)
                for side in ("train", "validation"):
                    tokens = dataset.windows(side, 4)[0]
                    assert min(tokens) >= 0 and max(tokens) < dataset.vocab_size

            answers.append(answer(use))

        for_all(
            count, check, content=FILES, name=NAMES, zipped=st.booleans(),
            source=st.sampled_from(["text", "text", "jsonl", "parquet"]),
            tokenizer=st.sampled_from(["byte", "char", "bpe"]), whole_folder=st.booleans(),
            split=st.sampled_from(["hash", "tail"]),
        )  # fmt: skip
    assert "" in answers and len(set(answers)) > 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small tokenizer.json, as a dictionary."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_bpe(["the quick brown fox jumps over the lazy dog " * 20], 300).inner.save(str(file))
    return json.loads(file.read_text())


@tiers(25, 40, 400)
def test_tokenizer_files(count, tokenizer, tmp_path):
    answers, numbers = [], itertools.count()

    def check(edits, text):
        damaged = tokenizer
        for path, new in edits:
            with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier edit took the place away
                damaged = edited(damaged, path, new)
        file = tmp_path / f"{next(numbers)}.json"
        file.write_text("" if damaged is ... else json.dumps(damaged))

        def use() -> None:
            opened = open_tokenizer(str(file))
            tokens = opened.encode(text)
            assert all(0 <= token < opened.vocab_size for token in tokens)
            opened.decode(tokens)

        answers.append(answer(use))

    edit = st.tuples(st.sampled_from(sorted(places(tokenizer), key=str)), st.sampled_from(NEW))
    for_all(
        count, check, edits=st.lists(edit, min_size=1, max_size=2), text=st.sampled_from(["the fox", "日本", "", "\0"])
    )
    assert "" in answers and len(set(answers)) > 3


UNREAD = {
    "no unknown token": (lambda m: m.WordLevel({"zzz": 0}, unk_token="x"), "it cannot read 'the fox"),
    "no unknown piece": (lambda m: m.WordPiece({"z": 0}, unk_token="[UNK]"), "it cannot read 'the fox"),
    "no unknown id": (lambda m: m.Unigram([("z", -1.0)]), "it cannot read 'the fox"),
    "drops the text": (lambda m: m.BPE({"z": 0}, []), "it makes no token of the"),
    "no vocabulary": (lambda m: m.BPE({}, []), "it has no tokens"),
    "a huge id": (lambda m: m.BPE({"t": 2**31}, []), "its largest token id is 2147483648"),
}
"""{tokenizer that cannot read the text: (its model, what is said)}."""


@pytest.mark.parametrize("kind", UNREAD)
def test_tokenizers_that_cannot_read_the_text(kind, tmp_path):
    from tokenizers import Tokenizer, models

    make, said = UNREAD[kind]
    text, file = tmp_path / "a.txt", tmp_path / "tokenizer.json"
    text.write_text("the fox jumps\n" * 200)
    Tokenizer(make(models)).save(str(file))
    data = Data(source="text", path=str(text), tokenizer=f"file:{file}", seq_len=4, dir=str(tmp_path / "data"))
    assert said in answer(lambda: prepare(data, progress=False))


def test_a_tokenizer_with_holes_in_its_ids_is_read(tmp_path):
    from tokenizers import Tokenizer, models

    file = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"t": 5, "h": 90, "e": 7}, [])).save(str(file))
    opened = open_tokenizer(str(file))
    assert opened.vocab_size == 91 and opened.encode("the") == [5, 90, 7]
    assert opened.decode([5, 6, 90]).replace(" ", "") == "th"  # 6 is a hole
