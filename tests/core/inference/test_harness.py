"""Requests of lm-evaluation-harness are answered by a model that needs neither a framework nor the harness."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from slm_core.data.tokenizers import Byte, Char, Library, Tokenizer, train_bpe
from slm_core.errors import UserError
from slm_core.inference.harness import Adapter, Row, batches, generation, rolling_windows
from slm_core.inference.harness_tasks import as_json, as_lines, open_tasks
from slm_core.inference.special import end_tokens as named_ends
from slm_core.inference.special import ends, prefix_token
from slm_core.protocols import IGNORE
from tests.core.fake_engine import BigramDecoder

CONTEXT = 8


class Bigrams:
    """A scorer whose logits depend on the last token alone."""

    def __init__(self, vocab_size: int = 256):
        self.logits = np.random.default_rng(0).normal(0, 3, (vocab_size, vocab_size))
        self.logs = self.logits - np.log(np.exp(self.logits).sum(-1, keepdims=True))
        self.shapes: list[tuple[int, ...]] = []

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert tokens.dtype == np.int32 and tokens.shape[1] <= CONTEXT + 1
        self.shapes.append(tokens.shape)
        before, after = np.maximum(tokens[:, :-1], 0), tokens[:, 1:]
        logs = np.where(after == IGNORE, 0, self.logs[before, after])
        return logs, self.logits[before].argmax(-1) == after

    def decoder(self) -> BigramDecoder:
        return BigramDecoder(self.logits, CONTEXT)

    def log(self, tokens: list[int], targets: int) -> float:
        pairs = list(zip(tokens, tokens[1:], strict=False))[-targets:]
        return sum(self.logs[pair] for pair in pairs)


def adapter(tokenizer: Tokenizer | None = None, **options) -> Adapter:
    return Adapter(Bigrams(), tokenizer or Byte(), CONTEXT, **options)


def requests(*args: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=each) for each in args]


def test_a_continuation_has_the_sum_of_its_tokens():
    model = adapter()
    pairs = [("ab", "cd"), ("abc", "d"), ("x", "yzw"), ("ab ", "cd"), ("0123456789", "ab"), (" ", "a"), ("", "ab")]
    expected = [(b"abcd", 2), (b"abcd", 1), (b"xyzw", 3), (b"ab cd", 3), (b"89ab", 2), (b"\0 a", 2), (b"\0ab", 2)]
    answers = model.loglikelihood(requests(*pairs))
    for (log, greedy), (tokens, targets) in zip(answers, expected, strict=True):
        assert log == pytest.approx(model.scorer.log(list(tokens), targets)) and not greedy
    assert model.scorer.shapes == [(7, CONTEXT + 1)]


def test_a_continuation_is_greedy_if_each_token_is_the_likeliest():
    model = adapter(Char("".join(map(chr, range(256)))))
    text, likeliest = "a", model.scorer.logits.argmax(-1)
    for _ in range(3):
        text += chr(likeliest[ord(text[-1])])
    other = text[:3] + chr(likeliest[ord(text[2])] ^ 1)
    assert [greedy for _, greedy in model.loglikelihood(requests(("a", text[1:]), ("a", other[1:])))] == [True, False]


def test_a_whole_text_is_predicted_once_per_token():
    model = adapter()
    texts = [b"a", b"abcdefgh", b"abcdefghi", bytes(range(97, 122)), b""]
    answers = model.loglikelihood_rolling(requests(*[(text.decode(),) for text in texts]))
    expected = [model.scorer.log([0, *text], len(text)) if text else 0.0 for text in texts]
    assert answers == pytest.approx(expected)


def test_windows_are_those_of_the_harness_s_own_page():
    """The example in the harness's description of a rolling log-likelihood: ten tokens, a context of four."""
    assert rolling_windows(list(range(10)), 99, 4) == [
        Row([99, 0, 1, 2, 3], 4),
        Row([3, 4, 5, 6, 7], 4),
        Row([5, 6, 7, 8, 9], 2),
    ]
    assert rolling_windows([5, 6, 7], None, 4) == [Row([5, 6, 7], 2)] and rolling_windows([5], None, 4) == []


@pytest.mark.parametrize("length", range(0, 14))
def test_windows_are_those_of_the_harness(length: int):
    utils = pytest.importorskip("lm_eval.utils")
    tokens = list(range(length))
    windows = map(utils.make_disjoint_window, utils.get_rolling_token_windows(tokens, 99, 4, 1))
    assert rolling_windows(tokens, 99, 4) == [Row(before + after, len(after)) for before, after in windows]


def test_long_rows_lose_their_first_tokens_and_batches_hold_few_tokens(monkeypatch):
    monkeypatch.setattr("slm_core.inference.harness.TOKENS_AT_ONCE", 12)
    rows = {i: Row(list(range(size)), 1) for i, size in enumerate([3, 9, 5, 4, 5])}
    got = list(batches(rows, 5))
    assert [{i: len(row.tokens) for i, row in batch.items()} for batch in got] == [{1: 6, 2: 5}, {4: 5, 3: 4}, {0: 3}]
    assert got[0][1].tokens == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("continuation", ["", "123456789"])
def test_a_continuation_that_cannot_be_predicted_is_an_error(continuation: str):
    with pytest.raises(UserError, match=f"adds {len(continuation)} tokens .* 1 to {CONTEXT}"):
        adapter().loglikelihood(requests(("a", continuation)))


def greedy_text(model: Adapter, prompt: str, count: int) -> str:
    tokens = model.encode(prompt)
    for _ in range(count):
        tokens.append(int(model.scorer.logits[tokens[-1]].argmax()))
    return model.run_tokenizer.decode(tokens[len(prompt) :])


def test_a_text_ends_at_the_first_stop_or_at_the_end_token():
    characters = Char("".join(map(chr, range(256))))
    model = adapter(characters, tokens={"eos_token_id": []})
    whole = greedy_text(model, "def", 20)
    settings = {"max_gen_toks": 20}
    ask = [settings, settings | {"until": whole[5:7]}, settings | {"until": [whole[9], whole[4:6], ""]}]
    assert model.generate_until(requests(*[("def", each) for each in ask])) == [
        whole, whole[: whole.index(whole[5:7])], whole[: min(whole.index(whole[9]), whole.index(whole[4:6]))],
    ]  # fmt: skip
    ending = adapter(characters, tokens={"eos_token_id": [ord(whole[3])]})
    assert ending.generate_until(requests(("def", settings))) == [whole[: whole.index(whole[3])]]


def test_a_text_is_drawn_only_if_the_task_asks_for_it():
    model = adapter(Char("".join(map(chr, range(256)))))
    ask = [{}, {"do_sample": False, "temperature": 1.0}, {"do_sample": True}, {"temperature": 0.7}]
    texts = model.generate_until(requests(*[("def", {"max_new_tokens": 20} | each) for each in ask]))
    assert texts[0] == texts[1] == greedy_text(model, "def", 20) and len({texts[0], texts[2], texts[3]}) == 3


def test_settings_of_a_text():
    assert generation({}) == ([], 256, 0.0, 0, 1.0)
    given = {"until": "x", "max_tokens": 3, "do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.9}
    assert generation(given) == (["x"], 3, 0.5, 4, 0.9)
    with pytest.raises(UserError, match=r"generation_kwargs.num_beams=4 is not known here; known are do_sample"):
        generation({"num_beams": 4})


def test_the_token_before_a_text():
    without_end = Char("abc")
    assert prefix_token(Byte(), {}) == 0 and prefix_token(without_end, {}) is None
    assert prefix_token(Byte(), {"bos_token_id": 5, "eos_token_id": 6}) == 5
    assert prefix_token(Byte(), {"bos_token_id": None, "eos_token_id": [7, 6]}) == 6
    assert (
        ends(Byte(), {"eos_token_id": [7, 6]}) == {6, 7} and ends(Byte(), {}) == {0} and ends(without_end, {}) == set()
    )
    assert named_ends({"eos_token_id": 3}) == {3} and named_ends({}) == set()


def test_without_a_token_before_a_text_its_first_token_is_not_predicted():
    model = adapter(Char("".join(map(chr, range(1, 256)))))
    assert model.prefix is None
    tokens = model.encode("abc")
    assert model.loglikelihood(requests(("", "abc")))[0][0] == pytest.approx(model.scorer.log(tokens, 2))
    assert model.loglikelihood_rolling(requests(("abc",), ("a",))) == pytest.approx([model.scorer.log(tokens, 2), 0])


def test_an_imported_model_gets_what_its_tokenizer_puts_before_a_text():
    from tokenizers.processors import TemplateProcessing

    inner = train_bpe(["some text"] * 3, 257).inner
    inner.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer = Library(inner, "file")
    tokens = tokenizer.encode("abcd")
    for imported, before in ((True, [0]), (False, [])):
        model = adapter(tokenizer, imported=imported)
        model.scorer = Bigrams(257)
        (row,) = [model._pair("ab", "cd")]
        assert row == Row(before + tokens, 2)


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "lm_eval.evaluator", raising=False)
    with pytest.raises(UserError, match="--tasks needs lm-evaluation-harness .*; install it: uv sync --extra lm-eval"):
        open_tasks("hellaswag", "", None)


RESULTS = {
    "results": {"a": {"alias": "a", "acc,none": 0.25,
                      "acc_stderr,none": 0.1, "em,strict": 1, "em_stderr,strict": "N/A"}},
    "n-shot": {"a": 2},
    "n-samples": {"a": {"original": 9, "effective": 4}},
    "versions": {"a": 1},
}  # fmt: skip


def test_results_are_written_for_the_user():
    assert as_lines(RESULTS) == [
        "a: acc 0.2500 ± 0.1000  (4 questions, 2-shot)",
        "a: em (strict) 1.0000  (4 questions, 2-shot)",
    ]


def test_results_are_written_as_the_harness_names_them():
    pytest.importorskip("lm_eval")
    row = as_json(RESULTS)
    assert row["results"] == {"a": {"acc,none": 0.25, "acc_stderr,none": 0.1, "em,strict": 1.0}}
    assert row["n-shot"] == {"a": 2} and row["lm_eval_version"]
