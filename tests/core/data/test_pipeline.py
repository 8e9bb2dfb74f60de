"""Batches: every window once per epoch, a restart from anywhere, the same rows for any number of processes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from slm_core.config import Data
from slm_core.data import Batches, prepare, validation_batches
from slm_core.errors import UserError
from slm_core.protocols import IGNORE

SEQ = 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    text = "".join(f"line {i} has {i * i}\n" for i in range(600))
    (folder / "text.txt").write_text(text)
    data = Data(source="text", path=str(folder / "text.txt"), dir=str(folder / "data"), seq_len=SEQ)
    return prepare(data, progress=False)


def windows(dataset, split):
    tokens = np.asarray(dataset.tokens(split), np.int32)
    count = (len(tokens) - 1) // SEQ
    return [tuple(tokens[i * SEQ : i * SEQ + SEQ + 1]) for i in range(count)]


def take(batches, count):
    return [next(batches) for _ in range(count)]


def test_an_epoch_has_every_window_once_in_a_new_order(dataset):
    expected = windows(dataset, "train")
    batches = Batches(dataset, "train", SEQ, 1, seed=0)
    epochs = [[tuple(batch[0]) for batch in take(batches, len(expected))] for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(expected)
        assert epoch != expected
    assert epochs[0] != epochs[1]


def test_batches_are_as_engines_want_them(dataset):
    batch = next(Batches(dataset, "train", SEQ, 4, seed=0))
    assert type(batch) is np.ndarray
    assert (batch.shape, batch.dtype) == ((4, SEQ + 1), np.int32)


def test_the_order_follows_the_seed(dataset):
    first, same, other = (np.stack(take(Batches(dataset, "train", SEQ, 4, seed), 5)) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("at", [0, 1, 3, 500])
def test_a_state_restarts_exactly(dataset, at):
    batches = Batches(dataset, "train", SEQ, 4, seed=0)
    take(batches, at)
    state = json.loads(json.dumps(batches.state()))
    assert state == {"next_index": at}
    after = take(batches, 3)
    fresh = Batches(dataset, "train", SEQ, 4, seed=0)
    next(fresh)
    fresh.restore(state)
    assert fresh.state() == state
    assert np.array_equal(take(fresh, 3), after)
    batches.restore(state)
    assert np.array_equal(take(batches, 3), after)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_rows_of_one(dataset, count):
    whole = Batches(dataset, "train", SEQ, 8, seed=0)
    parts = [Batches(dataset, "train", SEQ, 8, 0, index, count) for index in range(count)]
    for _ in range(120):  # beyond an epoch
        rows = np.stack([next(part) for part in parts], axis=1).reshape(8, SEQ + 1)
        assert np.array_equal(rows, next(whole))


def test_validation_is_fixed_and_counts_no_window_twice(dataset):
    expected = windows(dataset, "validation")
    for size, most in ((4, 3), (7, 1000)):
        first, again = (list(validation_batches(dataset, SEQ, size, most, seed=0)) for _ in range(2))
        assert np.array_equal(first, again)
        assert all(batch.shape == (size, SEQ + 1) and batch.dtype == np.int32 for batch in first)
        rows = [tuple(row) for batch in first for row in batch if row[0] != IGNORE]
        assert len(set(rows)) == len(rows) == min(size * most, len(expected))
        assert set(rows) <= set(expected)
    assert len(first) == -(-len(expected) // 7)
    assert (first[-1][len(expected) % 7 :] == IGNORE).all()


def test_validation_spreads_over_the_split(dataset):
    expected = {window: i for i, window in enumerate(windows(dataset, "validation"))}
    rows = [tuple(row) for batch in validation_batches(dataset, SEQ, 2, 4, seed=3) for row in batch]
    places = sorted(expected[row] * 8 // len(expected) for row in rows)
    assert places == list(range(8))


def test_a_validation_window_is_drawn_at_random_from_its_part(dataset):
    expected = {window: i for i, window in enumerate(windows(dataset, "validation"))}
    count = 8
    within = []
    for seed in range(30):
        rows = [tuple(row) for batch in validation_batches(dataset, SEQ, 2, count // 2, seed) for row in batch]
        starts = [part * len(expected) // count for part in range(count)]
        within += [(expected[row] - start) * count / len(expected) for row, start in zip(rows, starts, strict=True)]
    # A part has few windows, so the mean of its first, second, ... is below 1/2.
    assert min(within) >= 0 and max(within) < 1 and 0.35 < np.mean(within) < 0.55


def test_any_validation_window_can_be_drawn(dataset):
    """Also if the parts cannot all be equal: no rest is left over at the end."""
    expected = windows(dataset, "validation")
    count = next(count for count in range(8, 20) if len(expected) % count == count - 1)
    drawn = {
        tuple(row) for seed in range(100) for batch in validation_batches(dataset, SEQ, count, 1, seed) for row in batch
    }
    assert drawn == set(expected)


def test_mistakes_are_named(dataset):
    with pytest.raises(UserError, match="data.seq_len=100000: the validation split"):
        validation_batches(dataset, 100_000, 4, 4, seed=0)
    with pytest.raises(UserError, match="train.batch_size=6: 4 processes"):
        Batches(dataset, "train", SEQ, 6, 0, 0, 4)
    with pytest.raises(UserError, match="data state"):
        Batches(dataset, "train", SEQ, 4, 0).restore({"next": 3})
    with pytest.raises(UserError, match="did you mean train"):
        dataset.tokens("trian")


def test_batches_start_no_backend_and_print_nothing(dataset):
    code = f"""
import sys
from slm_core.data import Batches
from slm_core.data.dataset import TextDataset
assert not set(sys.modules) & {{"jax", "torch", "grain", "tokenizers", "pyarrow", "rich"}}
next(Batches(TextDataset({str(dataset.folder)!r}), "train", {SEQ}, 4, seed=0))
bridge = sys.modules.get("jax._src.xla_bridge")
assert not bridge or not bridge._backends
assert "torch" not in sys.modules
"""
    env = {key: value for key, value in os.environ.items() if key != "JAX_PLATFORMS"} | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
