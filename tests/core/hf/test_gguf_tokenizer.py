"""The tokenizer inside a GGUF file splits text as the tokenizer that it was made of."""

import json

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from slm_core.data.tokenizers import load_tokenizer
from slm_core.hf.gguf_tokenizer import SPACE, SPLITS, WHOLE_WORDS, write_tokenizer
from slm_core.inference.chat import chat_text

TEXT = (
    "The quick brown fox isn't lazy: 12345 foxes, 67 dogs.\n\n  They'LL jump over 北京 and Köln, naïve 🙂 çá.\r\n" * 20
)
TEXTS = (
    "The fox isn't quick", " two  spaces   and\ttabs \n\n new", "1234567 dogs, 3.14", "naïve Köln 北京 🙂 \u0301x", "",
    "I'LL they'll DON'T", "a<|end|>b <think>c", "x = foo(bar)[1] // y\r\n\r\n", "HTMLParser camelCase ÀÉ ßẞ",
)  # fmt: skip
SPECIAL = ["<|start|>", "<|end|>"]
USER = "<think>"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of Qwen2's tokenizer.json. Llama 3's differs in the digits: up to three together."""
LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PUBLISHED = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), LEVEL]),
    "llama-bpe": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")), "isolated"), LEVEL]
    ),
}
"""{tokenizer.ggml.pre: how the published tokenizer.json of such models splits text}"""


def keys_of(inner, pre="", kind="gpt2", **more):
    """Returns the keys that llama.cpp writes for a tokenizer."""
    data = json.loads(inner.to_str())
    vocab = inner.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.get)
    special = {token["content"]: 3 if token["special"] else 4 for token in data["added_tokens"]}
    merges = [" ".join(pair) for pair in data["model"]["merges"]]
    keys = {"model": kind, "tokens": tokens, "token_type": [special.get(token, 1) for token in tokens]}
    keys |= {"bos_token_id": vocab[SPECIAL[0]], "eos_token_id": vocab[SPECIAL[1]]}
    keys |= {"pre": pre, "merges": merges} if kind == "gpt2" else {}
    return {f"tokenizer.ggml.{name}": value for name, value in (keys | more).items()}


def byte_level(pre):
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=pre in WHOLE_WORDS))
    inner.pre_tokenizer, inner.decoder = PUBLISHED[pre], decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=LEVEL.alphabet(), show_progress=False
    )
    inner.train_from_iterator([TEXT], trainer)
    inner.add_tokens([USER])
    return inner


def sentencepiece():
    """A BPE as SentencePiece trains it; its vocabulary has tokens for bytes, and a score per token."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first")
    first = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    inner.train_from_iterator(
        [TEXT.replace("🙂", "")], trainers.BpeTrainer(vocab_size=420, special_tokens=first, show_progress=False)
    )
    vocab, data = inner.get_vocab(), json.loads(inner.to_str())
    merges = [tuple(pair) for pair in data["model"]["merges"]]
    # Trained as one word per space; SentencePiece's merges never look past one, so the whole text may be one piece.
    made = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=False)
    strip = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1)]
    made.decoder = decoders.Sequence(strip)
    made.add_special_tokens(SPECIAL)
    tokens = sorted(vocab, key=vocab.get)
    ranks = {"".join(pair): -float(i + 1) for i, pair in reversed(list(enumerate(merges)))}
    types = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
    return made, {"scores": [ranks.get(token, -1e4) for token in tokens], "token_type": types}


def written(keys, folder):
    assert write_tokenizer(keys, folder) == ""
    return load_tokenizer(folder)


@pytest.mark.parametrize("pre", PUBLISHED)
def test_a_byte_level_tokenizer(pre, tmp_path):
    inner = byte_level(pre)
    tokenizer = written(keys_of(inner, pre), tmp_path)
    for text in TEXTS:
        ids = inner.encode(text).ids
        assert tokenizer.written(text) == ids and tokenizer.decode(ids) == text
    assert tokenizer.prompt("fox") == ([0] if pre == "llama-bpe" else []) + tokenizer.encode("fox")
    assert tokenizer.vocab_size == inner.get_vocab_size() and len(tokenizer.written("<|end|><think>")) == 2


def test_a_sentencepiece_tokenizer(tmp_path):
    inner, more = sentencepiece()
    tokenizer = written(keys_of(inner, kind="llama", **more), tmp_path)
    for text in TEXTS:
        ids = inner.encode(text, add_special_tokens=False).ids
        assert tokenizer.written(text) == ids, text
        if "<think>" not in text:  # the space before a token of its own is one more
            assert tokenizer.decode(ids) == inner.decode(ids, skip_special_tokens=False)
    assert tokenizer.prompt("fox")[0] == 1 and tokenizer.decode(tokenizer.encode("🙂 fox")) == "🙂 fox"


def test_two_tokens_become_one_by_their_score(tmp_path):
    tokens, scores = ["<unk>", SPACE, "a", "b", "c", "ab", "bc"], [0.0, -9.0, -9.0, -9.0, -9.0, -2.0, -1.0]
    keys = {"model": "llama", "tokens": tokens, "scores": scores, "token_type": [2, 1, 1, 1, 1, 1, 1]}
    keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items()} | {
        "tokenizer.ggml.add_space_prefix": False
    }
    assert written(keys, tmp_path / "one").encode("abc") == [2, 6]
    keys["tokenizer.ggml.scores"] = [*scores[:5], -1.0, -2.0]
    assert written(keys, tmp_path / "two").encode("abc") == [5, 4]


@pytest.mark.parametrize(("pre", "count"), [("llama-bpe", 1), ("tekken", 1), ("qwen2", 3), ("smollm", 3)])
def test_a_word_that_is_a_token_is_merged_or_not(pre, count, tmp_path):
    tokens = [*sorted(LEVEL.alphabet()), "xyz"]
    keys = {"model": "gpt2", "pre": pre, "tokens": tokens, "merges": [], "bos_token_id": 0}
    keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}
    assert len(written(keys, tmp_path).encode("xyz")) == count


def test_a_contraction_is_a_part_of_its_own(tmp_path):
    for pre in ("llama-bpe", "qwen2"):
        tokenizer = written(keys_of(byte_level(pre), pre), tmp_path / pre)
        assert [part for part, _ in tokenizer.inner.pre_tokenizer.pre_tokenize_str("it'Sx")] == ["it", "'S", "x"]


def test_digits_are_split_as_each_model_splits_them(tmp_path):
    digits = {
        "gpt-2": ["1234567"],
        "smollm": list("1234567"),
        "qwen2": list("1234567"),
        "llama-bpe": ["123", "456", "7"],
    }
    for pre, parts in digits.items():
        tokenizer = written(keys_of(byte_level(pre), pre), tmp_path / pre)
        assert [part for part, _ in tokenizer.inner.pre_tokenizer.pre_tokenize_str("1234567")] == parts


def test_each_expression_can_be_read(tmp_path):
    keys = keys_of(byte_level("gpt-2"))
    for pre in SPLITS:
        assert written(keys | {"tokenizer.ggml.pre": pre}, tmp_path / pre).decode([300]) != ""


def test_the_file_says_what_stands_around_a_text_and_how_a_chat_is_written(tmp_path):
    more = {"add_bos_token": True, "add_eos_token": True}
    keys = keys_of(byte_level("gpt-2"), "gpt-2", **more) | {
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}!"
    }
    tokenizer = written(keys, tmp_path / "run" / "tokenizer")
    assert tokenizer.inner.encode("fox").ids == [0, *tokenizer.encode("fox"), 1]
    assert tokenizer.prompt("fox") == [0, *tokenizer.encode("fox")]
    assert chat_text(tmp_path / "run" / "tokenizer", "hi") == "<|start|>hi!"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model='bert' is none of gpt2, llama"),
        ({"model": None}, "tokenizer.ggml.model=None is none of"),
        ({"pre": "new"}, "tokenizer.ggml.pre='new' is none of gpt-2"),
        ({"pre": None}, "tokenizer.ggml.pre=None is none of gpt-2"),
        ({"tokens": None}, "it has no tokenizer.ggml.tokens"),
        ({"merges": ["x yz"]}, "cannot be read ("),
        ({"merges": ["x"]}, "cannot be read ("),
        ({"merges": [1]}, "cannot be read ("),
        ({"model": ["gpt2"]}, "tokenizer.ggml.model=['gpt2'] is none of"),
        ({"token_type": [1]}, "another length"),
        ({"model": "llama"}, "no tokenizer.ggml.scores"),
        ({"precompiled_charsmap": [1]}, "tokenizer.ggml.precompiled_charsmap is set"),
        ({"bos_token_id": 10**6, "add_bos_token": True}, "cannot be read ("),
    ],
)
def test_what_cannot_be_read_is_one_line(changes, reason, tmp_path):
    keys = keys_of(byte_level("gpt-2"), "gpt-2") | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    note = write_tokenizer(keys, tmp_path / "tokenizer")
    assert reason in note and "\n" not in note and "put the model's tokenizer.json beside the file" in note
    assert not (tmp_path / "tokenizer" / "kind.json").exists()
