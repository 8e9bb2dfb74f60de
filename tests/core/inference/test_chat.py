"""Prompts with special tokens, and chats, as the tokenizer of transformers writes them."""

import json

import pytest

from slm_core.data.tokenizers import Library, load_tokenizer, train_bpe
from slm_core.errors import UserError
from slm_core.hf.tokenizer import import_tokenizer
from slm_core.inference.chat import chat_text

TEXT = "the quick brown fox jumps over the lazy dog. " * 50
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n    {{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " | trim + '<|im_end|>\n' }}\n{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    inner = train_bpe([TEXT], 300).inner
    inner.add_special_tokens(["<|im_start|>", "<|im_end|>", "<s>"])
    inner.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def run(source, tmp_path):
    import_tokenizer(source, tmp_path / "run" / "tokenizer")
    return tmp_path / "run" / "tokenizer"


def theirs(source):
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(source)


def ours(run) -> Library:
    tokenizer = load_tokenizer(run)
    assert isinstance(tokenizer, Library)
    return tokenizer


def test_a_prompt_with_special_tokens_has_the_tokens_that_the_tokenizer_itself_gives(source, run):
    text = "<|im_start|>user\nthe dog<|im_end|>\n"
    assert ours(run).prompt(text) == theirs(source).encode(text)
    assert ours(run).encode(text) != ours(run).prompt(text)  # in a text to learn from, the name is text
    assert ours(run).encode("the dog") == ours(run).prompt("the dog")


@pytest.mark.parametrize("message", ["the dog", "  a <b> & 'c'  ", "<|im_end|>", ""])
def test_a_chat_has_the_tokens_of_the_tokenizers_own_template(source, run, message):
    chat = [{"role": "user", "content": message}]
    expected = theirs(source).apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ours(run).written(chat_text(run, message)) == expected


def test_a_template_of_its_own_file_comes_first(source, run):
    (run / "chat_template.jinja").write_text("[{{ messages[0].content | tojson }}]")
    assert chat_text(run, 'a "b"') == '["a \\"b\\""]'


def test_a_template_that_is_missing_or_refuses_is_one_line(run):
    (run / "chat_template.jinja").write_text("{{ raise_exception('no\nsystem') }}")
    with pytest.raises(UserError, match=r"cannot be rendered \(no system\)"):
        chat_text(run, "x")
    (run / "chat_template.jinja").unlink()
    (run / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="has no chat template"):
        chat_text(run, "x")
