"""Synthetic tasks: every answer follows from the words before it by a rule written here a second time."""

import collections
import functools
import itertools

import numpy as np
import pytest
from scipy import stats

from parity.fields import choices
from slm_core.config import Data
from slm_core.data import Batches, load_tokenizer, prepare, save_tokenizer, validation_batches
from slm_core.data.task_data import task_options
from slm_core.data.tasks import TASKS
from slm_core.errors import UserError
from slm_core.protocols import IGNORE, unscored

SEQ = 40
SIZES = {"task_symbols": 16, "task_items": 4}


def data_of(task: str, **fields) -> Data:
    return Data(source="task", task=task, **({"seq_len": SEQ} | SIZES | fields))


opened = functools.cache(prepare)


def rows(data: Data, split: str = "train", count: int = 200) -> list[np.ndarray]:
    windows = opened(data).windows(split, data.seq_len)
    return [windows[i] for i in range(count)]


def words_of(data: Data, row: np.ndarray) -> list[str]:
    words = opened(data).tokenizer.words
    return [words[token if token >= 0 else unscored(token)] for token in row.tolist()]


def copied(words: list[str]) -> str:
    mark = words.index(">")
    return [word for word in words[:mark] if word != "_"][len(words) - mark - 1]


def last_successor(words: list[str]) -> str:
    """Returns what followed the last earlier occurrence of the last word."""
    earlier = max(i for i in range(len(words) - 1) if words[i] == words[-1])
    return words[earlier + 1]


def first_successor(words: list[str]) -> str:
    """Returns what followed the first occurrence of the last word."""
    return words[words.index(words[-1]) + 1]


def of_pairs(words: list[str]) -> str:
    return dict(zip(words[:-1:2], words[1::2], strict=True))[words[-1]]


def at_place(words: list[str]) -> str:
    return words[int(words[-1].removeprefix("p"))]


def added(words: list[str]) -> str:
    a, plus, b, equals = words[-4:]
    assert (plus, equals) == ("+", "=")
    return str((int(a) + int(b)) % SIZES["task_symbols"])


def odd(words: list[str]) -> str:
    bits = words[-1 - SIZES["task_items"] : -1]
    assert words[-1] == "=" and set(bits) <= {"0", "1"}
    return str(bits.count("1") % 2)


def innermost(words: list[str]) -> str:
    """Removes pairs of brackets until none is left; the last open one has to be closed."""
    text = " ".join(words) + " "
    before = None
    while before != text:
        before = text
        for kind in range(SIZES["task_symbols"]):
            text = text.replace(f"({kind} ){kind} ", "")
    return text.split()[-1].replace("(", ")")


def agreeing(words: list[str]) -> str:
    """Reads the words with a stack of subjects: the noun that opens a sentence or follows "that"."""
    subjects = []
    for i, word in enumerate(words):
        if word.startswith("noun") and (i == 1 or words[i - 2] in (".", "that")):
            subjects.append(word)
        elif word in ("see", "sees"):
            subjects.pop()
    return "see" if subjects[-1].endswith("s") else "sees"


SOLVERS = {
    "copying": copied, "selective_copying": copied, "induction": last_successor,
    "repetition": first_successor, "mqar": first_successor, "in_context_recall": of_pairs,
    "noisy_recall": last_successor, "compression": at_place, "modular_addition": added, "parity": odd,
    "dyck": innermost, "grammar": agreeing,
}  # fmt: skip
"""{task: gives the answer that follows the words}. `memorization` has no such rule: see its own test."""


def test_every_task_is_a_choice():
    assert list(TASKS) == list(choices("data.task"))
    assert {*SOLVERS, "memorization"} == set(TASKS)


@pytest.mark.parametrize("task", SOLVERS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_answer_follows_from_the_words_before_it(task, split):
    data = data_of(task)
    for row in rows(data, split):
        words = words_of(data, row)
        answers = np.flatnonzero(row >= 0)
        assert len(answers)
        for at in answers:
            assert words[at] == SOLVERS[task](words[:at]), " ".join(words)


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_as_batches_want_them(task):
    data = data_of(task)
    dataset = prepare(data)
    assert dataset.vocab_size == len(set(dataset.tokenizer.words))
    for row in rows(data, count=20):
        assert (row.shape, row.dtype) == ((SEQ + 1,), np.int32)
        ids = np.maximum(row, unscored(row))
        assert IGNORE not in row and ids.min() >= 0 and ids.max() < dataset.vocab_size


@pytest.mark.parametrize(
    ("task", "answers"),
    [("copying", 4), ("selective_copying", 4), ("induction", 4), ("mqar", 4), ("compression", 4), ("parity", 6),
     ("modular_addition", 8)],
)  # fmt: skip
def test_a_sequence_has_as_many_answers_as_its_description_says(task, answers):
    assert {int((row >= 0).sum()) for row in rows(data_of(task))} == {answers}


def test_every_repeated_key_is_an_answer_of_recall():
    for task in ("in_context_recall", "noisy_recall"):
        data = data_of(task)
        for row in rows(data, count=50):
            words, seen = words_of(data, row), set()
            for at in range(1, len(words), 2):
                key = words[at - 1]
                assert (row[at] >= 0) == (key in seen), " ".join(words)
                seen |= {key} if key.startswith("k") else set()


def test_far_brackets_and_far_verbs_are_answers():
    """A closing bracket is an answer unless it closes the token before; a verb, if another noun is nearer."""
    brackets, sentences = data_of("dyck"), data_of("grammar")
    for row in rows(brackets, count=50):
        words = words_of(brackets, row)
        far = [word.startswith(")") and not words[i - 1].startswith("(") for i, word in enumerate(words)]
        assert far == (row >= 0).tolist()
        depth = np.cumsum([1 if word.startswith("(") else -1 for word in words])
        assert depth.min() >= 0 and depth.max() <= SIZES["task_items"]
    for row in rows(sentences, count=50):
        words = words_of(sentences, row)
        near = [word in ("see", "sees") and words[i - 3] in (".", "that") for i, word in enumerate(words) if i > 2]
        verbs = [word in ("see", "sees") for word in words]
        near = [*(verb and i < 3 for i, verb in enumerate(verbs[:3])), *near]
        assert [verb and not close for verb, close in zip(verbs, near, strict=True)] == (row >= 0).tolist()


def test_facts_are_the_same_in_both_splits_and_follow_the_seed():
    tables = []
    for fields in ({}, {"task_seed": 1}):
        data = data_of("memorization", **fields)
        table: dict[str, str] = {}
        for split in ("train", "validation"):
            for row in rows(data, split):
                words, seen = words_of(data, row), set()
                for at in range(1, len(words), 2):
                    key, value = words[at - 1 : at + 1]
                    assert table.setdefault(key, value) == value
                    assert (row[at] >= 0) == (key not in seen)
                    seen.add(key)
        assert len(table) == len(set(table.values())) == 8
        tables.append(table)
    assert tables[0] != tables[1]


def test_training_and_validation_share_no_equation():
    data = data_of("modular_addition", seq_len=4, task_train_fraction=0.25)
    asked = [
        {tuple(words_of(data, row)) for row in rows(data, split, 2000)} for split in ("train", "validation")
    ]  # fmt: skip
    assert not asked[0] & asked[1]
    assert [len(equations) for equations in asked] == [64, 192]  # all of 16^2, a quarter in training


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"modular_addition", "parity"}))
def test_no_sequence_of_validation_is_seen_in_training(task):
    data = data_of(task, task_items=8)
    seen = [{row.tobytes() for row in rows(data, split, 300)} for split in ("train", "validation")]
    assert len(seen[0]) == len(seen[1]) == 300 and not seen[0] & seen[1]


@pytest.mark.parametrize("task", TASKS)
def test_a_sequence_is_a_function_of_options_split_and_index(task):
    windows = prepare(data_of(task)).windows("train", SEQ)
    again = prepare(data_of(task)).windows("train", SEQ)
    other = prepare(data_of(task, task_seed=1)).windows("train", SEQ)
    order = np.random.default_rng(0).permutation(20)
    expected = {int(i): again[int(i)] for i in order}
    assert all(np.array_equal(windows[i], expected[i]) for i in range(20))
    assert not all(np.array_equal(windows[i], other[i]) for i in range(20))


def test_places_of_questions_follow_zoologys_power_law():
    """The gaps of single questions against those that NumPy draws by the formula of the paper's generator."""
    data = data_of("mqar", seq_len=63, task_items=1)
    gaps = [int(np.flatnonzero(row >= 0)[0]) // 2 - 1 for row in rows(data, count=2000)]
    weights = 0.01 * np.arange(1, 32) ** (0.01 - 1)
    expected = weights / weights.sum() * len(gaps)
    assert stats.chisquare(np.bincount(gaps, minlength=31), expected).pvalue > 0.01
    several = data_of("mqar", seq_len=63, task_items=8)
    drawn = [np.flatnonzero(row >= 0) // 2 - 8 for row in rows(several, count=800)]
    rng = np.random.default_rng(0)
    weights = np.arange(1, 25) ** (0.01 - 1) / (np.arange(1, 25) ** (0.01 - 1)).sum()
    told = [np.sort(rng.choice(24, 8, replace=False, p=weights)) for _ in range(800)]
    tables = [np.bincount(np.concatenate(places), minlength=24) for places in (drawn, told)]
    assert stats.chi2_contingency(tables).pvalue > 0.01


def test_keys_values_and_noise_are_uniform():
    data = data_of("mqar")
    drawn = [words_of(data, row)[:8] for row in rows(data, count=500)]
    for words in ([*itertools.chain(*(w[0::2] for w in drawn))], [*itertools.chain(*(w[1::2] for w in drawn))]):
        counts = collections.Counter(words)
        assert len(counts) == 8 and stats.chisquare(list(counts.values())).pvalue > 0.01
    noisy = data_of("noisy_recall")
    pairs = [word for row in rows(noisy, count=500) for word in words_of(noisy, row)[:40:2]]
    share = np.mean([word.startswith("n") for word in pairs])
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / len(pairs)))


def test_questions_are_clear():
    """A key of recall, or a token that induction asks, is in no place where it would have two answers."""
    data = data_of("mqar")
    for row in rows(data):
        words = words_of(data, row)
        assert all(words.count(key) == 2 for key in words[:8:2])
    data = data_of("induction")
    for row in rows(data):
        words = words_of(data, row)
        for at in np.flatnonzero(row >= 0):
            assert words.count(words[at - 1]) == words.count(words[at]) == 2


@pytest.mark.parametrize("task", TASKS)
def test_options_that_are_too_small_are_named(task):
    data = data_of(task)
    least = TASKS[task].least(task_options(data))
    assert len(rows(data_of(task, seq_len=least.length - 1), count=20)) == 20
    for field, smallest in (
        ("seq_len", least.length - 1),
        ("task_symbols", least.symbols),
        ("task_items", least.items),
    ):
        if smallest < 2:
            continue
        with pytest.raises(UserError) as caught:
            prepare(data_of(task, **{field: smallest - 1}))
        message = str(caught.value)
        assert message.startswith(f"data.{field}={smallest - 1}: data.task={task}") and "\n" not in message


def test_a_train_set_of_a_size_repeats():
    data = data_of("mqar", task_train_size=6)
    batches = Batches(prepare(data), "train", SEQ, 3, seed=0)
    epochs = [np.concatenate([next(batches), next(batches)]) for _ in range(2)]
    assert sorted(map(bytes, epochs[0])) == sorted(map(bytes, epochs[1])) == sorted(map(bytes, rows(data, count=6)))


def test_batches_of_a_task_restart_anywhere():
    dataset = prepare(data_of("mqar"))
    batches = Batches(dataset, "train", SEQ, 4, seed=3)
    whole = [next(batches) for _ in range(6)]
    again = Batches(dataset, "train", SEQ, 4, seed=3)
    again.restore({"next_index": 4})
    assert np.array_equal(next(again), whole[4])
    assert not np.array_equal(next(Batches(dataset, "train", SEQ, 4, seed=4)), whole[0])
    first, second = (list(validation_batches(dataset, SEQ, 4, 3, seed=0)) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_fingerprint_is_that_of_the_options():
    fingerprints = {
        prepare(data_of("mqar", **fields)).fingerprint
        for fields in ({}, {"task_seed": 1}, {"task_symbols": 18}, {"task_items": 3}, {"task_train_size": 9})
    }
    assert len(fingerprints) == 5 and prepare(data_of("mqar", seq_len=50)).fingerprint in fingerprints


def test_words_are_read_and_written(tmp_path):
    dataset = prepare(data_of("dyck"))
    save_tokenizer(dataset.tokenizer, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokens = tokenizer.encode("(1 (2 )2")
    stream = tokenizer.stream()
    assert tokenizer.decode(tokens) == "(1 (2 )2" == "".join(map(stream.push, tokens)) + stream.flush()
    with pytest.raises(UserError, match="'x' is not among the 33 words"):
        tokenizer.encode("(1 x")
    opening = tokenizer.decode(dataset.opening(SEQ)).split()
    assert innermost(opening)  # a question whose answer is the next word
