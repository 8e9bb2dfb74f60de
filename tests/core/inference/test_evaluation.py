"""The loss of a saved run, as a sum and per byte, with a model that needs no framework."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from slm_core.data import prepare, validation_batches
from slm_core.data.tokenizers import Byte, Char, Library, Words, train_bpe
from slm_core.errors import UserError
from slm_core.inference.evaluation import VALIDATION_SEED, Measured, evaluate, measure, text_bytes
from slm_core.inference.text import open_text
from slm_core.protocols import IGNORE, Evaluation
from slm_core.runs.saved import load_run
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, make_config

TEXT = "the quick brown fox, größer als 日本語 \N{PILE OF POO}\n"


def test_loss_is_converted_to_other_units():
    measured = Measured(nats=6.0, tokens=3, correct=2, text_bytes=4)
    assert measured.loss == 2 and measured.perplexity == pytest.approx(math.exp(2))
    assert measured.bits_per_byte == pytest.approx(6 / math.log(2) / 4)
    assert Measured(1e6, 1, 0, 1).perplexity == math.inf


@pytest.mark.parametrize("kind", ["byte", "char", "bpe"])
def test_bytes_of_the_targets(kind):
    make = {"byte": Byte, "char": lambda: Char(sorted(set(TEXT))), "bpe": lambda: train_bpe([TEXT] * 3, 300)}
    tokenizer = make[kind]()
    tokens = tokenizer.encode(TEXT)
    first = len(tokenizer.decode(tokens[:1]).encode())
    assert text_bytes(tokenizer, np.array(tokens, np.int32)) == len(TEXT.encode()) - first


def test_tokens_without_text_have_no_bytes():
    tokenizer = Byte()
    assert text_bytes(tokenizer, np.array([97, 98, 0, 99], np.int32)) == 2  # 0 ends a document
    assert text_bytes(tokenizer, np.array([0, 98, 99], np.int32)) == 2
    assert text_bytes(tokenizer, np.array([97, 98, IGNORE], np.int32)) == 1
    assert text_bytes(tokenizer, np.array([97, 0xE6, 0x97], np.int32)) == 2  # a character that is cut
    assert text_bytes(tokenizer, np.full(3, IGNORE, np.int32)) == 0


def bytes_as_tokens(*order: str) -> Library:
    """A tokenizer whose tokens are these bytes, in the alphabet of byte-level BPE, and no other."""
    import tokenizers

    inner = tokenizers.Tokenizer(tokenizers.models.BPE({byte: i for i, byte in enumerate(order)}, []))
    inner.decoder = tokenizers.decoders.ByteLevel()
    return Library(inner, "file")


def test_the_first_token_is_text_that_does_not_count():
    """A character that it begins counts with it: the targets' text is that of the window without the first token's."""
    tokenizer = bytes_as_tokens("\u00c3", "\u00a9", "a")
    assert tokenizer.decode([0, 1, 2]) == "éa"
    assert text_bytes(tokenizer, np.array([0, 1, 2], np.int32)) == len("éa".encode()) - len("\ufffd".encode())
    assert text_bytes(tokenizer, np.array([2, 0, 1], np.int32)) == 2
    assert text_bytes(tokenizer, np.array([IGNORE, 2, 2], np.int32)) == 2


def test_the_first_id_is_text_like_any_other():
    assert text_bytes(Char("\nab"), np.array([1, 0, 2], np.int32)) == 2


def test_words_of_a_task_are_no_text():
    assert text_bytes(Words(["a", "b"]), np.array([0, 1, 1], np.int32)) == 0


class Counting:
    """Reports of each piece what its first token is: the losses, then the targets, then those that are right."""

    def __init__(self):
        self.rows: list[int] = []

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        self.rows.append(len(tokens))
        return Evaluation(10.5 * tokens[:, 0].sum(), 3 * len(tokens), int(tokens[:, 1].sum()))


def test_the_sums_of_all_rows_are_added():
    batches = [np.array([[65, 1, 67], [66, 0, 68], [67, 1, 69]]), np.array([[68, 1, 70]])]
    evaluator = Counting()
    assert evaluate(evaluator, batches, 2) == (10.5 * (65 + 66 + 67 + 68), 12, 3)
    assert evaluator.rows == [2, 1, 1]
    told: list[Measured] = []
    measured = measure(evaluator, batches, Byte(), 2, told.append)
    assert measured == (10.5 * (65 + 66 + 67 + 68), 12, 3, 7) and told[-1] == measured
    assert told[0] == (10.5 * (65 + 66), 6, 1, 3)


def test_a_run_measures_what_training_measured(tmp_path):
    """The loss is the same on the run's own text, in batches of any size, and on that text given as a file."""
    config = make_config(tmp_path, steps=4)
    result = train(config, BigramEngine, "torch")
    saved = load_run(result.folder)
    engine = BigramEngine(config, saved.vocab_size)
    engine.restore(saved.checkpoint / "state")
    given = {"source": "text", "path": config.data.path, "split": "tail"}
    for text, rows in (({}, 4), ({}, 3), (given, 1)):
        dataset = open_text(saved, text, config.data.seq_len)
        batches = validation_batches(dataset, config.data.seq_len, 4, config.train.eval_batches, VALIDATION_SEED)
        told = []
        measured = measure(engine, batches, dataset.tokenizer, rows, told.append)
        assert measured.loss == pytest.approx(result.eval_loss, rel=1e-12)
        assert measured.text_bytes == measured.tokens and told[-1] == measured and len(told) > 2


def test_another_text_is_read_with_the_run_s_own_tokenizer(tmp_path):
    config = make_config(tmp_path, steps=2)
    data = dataclasses.replace(config.data, tokenizer="bpe", vocab_size=280)
    saved = load_run(train(dataclasses.replace(config, data=data), BigramEngine, "torch").folder)
    (tmp_path / "other.txt").write_text("a lazy fox and the dog\n" * 100)
    dataset = open_text(saved, {"source": "text", "path": str(tmp_path / "other.txt"), "split": "tail"}, 8)
    text = "the lazy dogs"
    assert dataset.vocab_size == saved.vocab_size == 280
    assert dataset.tokenizer.encode(text) == prepare(data).tokenizer.encode(text)


def test_another_text_is_masked_as_the_run_s_own(tmp_path):
    config = make_config(tmp_path, steps=2)
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.txt").write_text(TEXT * 20)
    data = dataclasses.replace(config.data, path=str(folder), document_mask=True, packing="documents")
    saved = load_run(train(dataclasses.replace(config, data=data), BigramEngine, "torch").folder)
    (tmp_path / "other.txt").write_text("a lazy fox and the dog\n" * 100)
    many, one = ({"source": "text", "path": str(path), "split": "tail"} for path in (folder, tmp_path / "other.txt"))
    masked = [open_text(saved, given, 8) for given in ({}, many, {"path": str(folder)}, one)]
    assert [(dataset.document_mask, dataset.packing) for dataset in masked] == [(True, "stream")] * 3 + [
        (False, "stream")
    ]


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as error:
        open_text(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_text_that_cannot_be_used(tmp_path):
    config = make_config(tmp_path, steps=2)
    saved = load_run(train(config, BigramEngine, "torch").folder)
    assert refusal(saved, {"path": "x", "source": "stdlib"}, 8).startswith("data.path")
    assert "data.path" in refusal(saved, {"source": "text", "path": str(tmp_path / "nothing")}, 8)
    assert "data.source" in refusal(saved, {"source": "txt"}, 8)
    assert "data.seq_len=9999" in refusal(saved, {}, 9999)
    path = Path(config.data.path)
    path.write_text(path.read_text().replace("fox", "cat"))
    assert "the text changed since" in refusal(saved, {}, 8)


def test_characters_of_another_text(tmp_path):
    config = make_config(tmp_path, steps=2)
    data = dataclasses.replace(config.data, tokenizer="char")
    saved = load_run(train(dataclasses.replace(config, data=data), BigramEngine, "torch").folder)
    assert open_text(saved, {}, 8).vocab_size == saved.vocab_size
    assert "data.tokenizer='char'" in refusal(saved, {"split": "hash"}, 8)
