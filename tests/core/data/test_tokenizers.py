"""Tokenizers: text comes back, streams never break a character, special names in a text stay text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_core.data.tokenizers import (
    END_OF_TEXT,
    Byte,
    Char,
    load_tokenizer,
    open_tokenizer,
    save_tokenizer,
    train_bpe,
)
from slm_core.errors import UserError

CORPUS = ["def f(x):\n    return x + 1\n", "naïve café, 東京 😀 👩‍👩‍👧\n", "print('hello, hello')\n"] * 20
BPE = train_bpe(CORPUS, 300)
CHAR = Char("\0" + "".join(sorted(set("".join(CORPUS)))))


def streamed(tokenizer, tokens) -> str:
    stream = tokenizer.stream()
    return "".join([stream.push(token) for token in tokens] + [stream.flush()])


@pytest.mark.parametrize("tokenizer", [Byte(), CHAR, BPE], ids=["byte", "char", "bpe"])
def test_a_tokenizer_keeps_text_through_saving(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    text = CORPUS[1]
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text == streamed(tokenizer, tokens)
    assert list(tokenizer.array(text.encode())) == tokens == loaded.encode(text)
    assert (loaded.vocab_size, loaded.end, loaded.kind) == (tokenizer.vocab_size, tokenizer.end, tokenizer.kind)
    assert max(tokens) < tokenizer.vocab_size


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_comes_back(text):
    for tokenizer in (Byte(), BPE):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text == streamed(tokenizer, tokens)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_a_stream_of_any_tokens_reads_as_they_decode(tokens):
    for tokenizer in (Byte(), BPE):
        assert streamed(tokenizer, tokens) == tokenizer.decode(tokens)


@pytest.mark.parametrize("tokenizer", [Byte(), BPE], ids=["byte", "bpe"])
def test_a_stream_shows_only_whole_characters(tokenizer):
    stream = tokenizer.stream()
    shown = [stream.push(token) for token in tokenizer.encode("a😀é東b")]
    assert "".join(shown) == "a😀é東b"
    assert not any("\ufffd" in part for part in shown)
    stream.push(tokenizer.encode("😀")[0])
    assert "\ufffd" in stream.flush()


def test_the_vocabularies():
    assert (Byte().vocab_size, Byte().end) == (256, 0)
    assert Char("abc").encode("cab") == [2, 0, 1]
    assert Char("abc").end is None
    assert CHAR.end == 0
    assert BPE.vocab_size == 300
    assert BPE.decode([BPE.end]) == END_OF_TEXT


def test_the_name_of_a_special_token_in_a_text_is_text():
    assert BPE.end not in BPE.encode(f"a {END_OF_TEXT} b")
    assert BPE.decode(BPE.encode(f"a {END_OF_TEXT} b")) == f"a {END_OF_TEXT} b"


def test_training_is_deterministic(tmp_path):
    for name in "ab":
        save_tokenizer(train_bpe(iter(CORPUS), 300), tmp_path / name)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_a_tokenizer_file_is_read_with_its_end(tmp_path):
    save_tokenizer(BPE, tmp_path)
    tokenizer = open_tokenizer(str(tmp_path / "tokenizer.json"))
    assert (tokenizer.kind, tokenizer.end) == ("file", BPE.end)
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    stored["added_tokens"] = []
    (tmp_path / "plain.json").write_text(json.dumps(stored))
    assert open_tokenizer(str(tmp_path / "plain.json")).end is None


def test_mistakes_are_named(tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    for path in ("bad.json", "missing.json"):
        with pytest.raises(UserError, match="data.tokenizer='file:.*" + path):
            open_tokenizer(str(tmp_path / path))
    with pytest.raises(UserError, match="'é' is not among the 2 characters"):
        Char("ab").encode("aé")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path)
