"""The induction score: 1 for a head that does what Olsson et al. 2022 describe, and little for all others."""

import numpy as np
import pytest

from slm_core.studies.inspection.induction import LONGEST, ROWS, head_scores, repeated_tokens


def one_hot(keys: np.ndarray) -> np.ndarray:
    """Returns the weights of a head that gives all its weight to one key per query, [rows, 1, time, time]."""
    return np.eye(keys.shape[1])[keys][:, None]


def followers(tokens: np.ndarray) -> np.ndarray:
    """Finds, for each token, the place after its first occurrence, or its own place if it is new; by search."""
    rows = []
    for row in tokens.tolist():
        first = [row.index(token) for token in row]
        rows.append([found + 1 if found < at else at for at, found in enumerate(first)])
    return np.array(rows)


@pytest.mark.parametrize(("vocab", "context", "copy"), [(500, 64, 32), (11, 64, 11), (500, 1000, LONGEST), (500, 9, 4)])
def test_random_tokens_come_twice_and_no_other_time(vocab, context, copy):
    tokens = repeated_tokens(vocab, context)
    assert tokens.shape == (ROWS, 2 * copy) and tokens.dtype == np.int32
    assert tokens.min() >= 0 and tokens.max() < vocab
    assert np.array_equal(tokens[:, :copy], tokens[:, copy:])
    assert all(len(set(row)) == copy for row in tokens.tolist())
    assert len({row.tobytes() for row in tokens}) == ROWS
    assert np.array_equal(tokens, repeated_tokens(vocab, context))


def test_a_head_that_does_induction_scores_one():
    tokens = repeated_tokens(100, 20)
    scores = head_scores(one_hot(followers(tokens)))
    assert scores.induction == [1.0] and scores.previous == [0.0] and scores.first == [0.0]


def test_other_heads_do_not():
    time = repeated_tokens(100, 20).shape[1]
    places = np.arange(time)
    for name, keys in {"previous": np.maximum(places - 1, 0), "first": np.zeros(time, int), "itself": places}.items():
        scores = head_scores(one_hot(np.tile(keys, (ROWS, 1))))
        found = {kind for kind in ("induction", "previous", "first") if getattr(scores, kind)[0] == 1.0}
        assert found == {name} - {"itself"} and scores.induction[0] == 0.0


def test_scores_are_means_over_rows_and_positions():
    weights = np.zeros((2, 1, 4, 4))
    weights[:, 0, 2, 1], weights[:, 0, 3, 2] = (0.2, 0.4), (0.6, 1.0)  # n = 2: from 2 to 1, and from 3 to 2
    assert head_scores(weights).induction == pytest.approx([0.55])
