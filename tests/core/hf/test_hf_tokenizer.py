"""Tokenizers that travel: what AutoTokenizer makes of an export encodes as the run's own, and comes back."""

import json

import pytest

from slm_core.data.tokenizers import Byte, Char, load_tokenizer, save_tokenizer, train_bpe
from slm_core.errors import UserError
from slm_core.hf.tokenizer import export_tokenizer, import_tokenizer

TEXT = "def f(x):\n\treturn 'é€😀'  # end. a\u00a0b\r\n"
TOKENIZERS = {
    "byte": Byte,
    "char": lambda: Char("".join(sorted(set(TEXT) | {"\0"}))),
    "bpe": lambda: train_bpe([TEXT * 3, "hello world " * 50], 300),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_an_exported_tokenizer_encodes_the_same(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = TOKENIZERS[kind]()
    save_tokenizer(tokenizer, tmp_path / "run")
    (tmp_path / "hf").mkdir()
    export_tokenizer(tmp_path / "run", tmp_path / "hf", 128)
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = exported(TEXT, add_special_tokens=False).input_ids
    assert ids == tokenizer.encode(TEXT)
    assert exported.decode(ids) == TEXT
    assert exported.eos_token_id == tokenizer.end
    assert import_tokenizer(tmp_path / "hf", tmp_path / "back") == ""
    assert load_tokenizer(tmp_path / "back").encode(TEXT) == ids


def test_files_beside_the_tokenizer_travel_both_ways(tmp_path):
    source, run, out = tmp_path / "source", tmp_path / "run", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    train_bpe([TEXT], 300).inner.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x", "eos_token": "<|endoftext|>"}))
    import_tokenizer(source, run)
    export_tokenizer(run, out, 8)
    assert (out / "tokenizer_config.json").read_text() == (source / "tokenizer_config.json").read_text()


def test_gpt2s_two_files_are_a_tokenizer(tmp_path):
    trained = train_bpe([TEXT], 300)
    trained.inner.model.save(str(tmp_path))
    assert import_tokenizer(tmp_path, tmp_path / "run") == ""
    assert load_tokenizer(tmp_path / "run").encode("return x") == trained.encode("return x")


def test_a_prompt_has_what_the_tokenizer_puts_before_it(tmp_path):
    from tokenizers.processors import TemplateProcessing

    trained = train_bpe([TEXT], 300)
    assert trained.prompt("def") == trained.encode("def")
    trained.inner.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", trained.end)]
    )
    assert trained.prompt("def") == [trained.end, *trained.encode("def")]


def test_a_missing_tokenizer_is_reported(tmp_path):
    assert "no tokenizer: the run can be exported" in import_tokenizer(tmp_path, tmp_path / "run")
    (tmp_path / "tokenizer.model").touch()
    assert "only a SentencePiece" in import_tokenizer(tmp_path, tmp_path / "run")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer.json"):
        import_tokenizer(tmp_path, tmp_path / "run")
