"""The loss, whole and in chunks, against the formula in float64."""

import numpy as np
import pytest

from slm_core.config import Model
from tests.conformance.arrays import TOLERANCE, numbers
from tests.reference import layers as reference


def test_token_losses_are_the_formula(twin):
    (logits,) = numbers((5, 7))
    logits, targets = 30 * logits, np.array([0, 6, -1, 3, -1])
    np.testing.assert_allclose(twin.token_losses(logits, targets), reference.token_losses(logits, targets), **TOLERANCE)


def test_a_target_with_the_largest_logit_is_correct(twin):
    """Of equal logits the lowest id is predicted; a target that does not count is never correct."""
    logits = np.array([[0.0, 2, 1], [3, 3, 0], [3, 3, 0], [0, 0, 1], [5, 0, 0], [0, 1, 0]])
    targets = np.array([1, 0, 1, 2, -1, 0])
    loss, correct = twin.scores(logits, targets)
    assert correct == 3
    assert loss == pytest.approx(reference.token_losses(logits, targets).sum(), rel=1e-12)


def test_z_loss_is_minimised_but_not_reported(twin):
    """The minimised sum has z logsumexp^2 more per target that counts; the reported sum has not."""
    (logits,) = numbers((5, 7))
    targets = np.array([0, 6, -1, 3, -1])
    tokens, objective = twin.losses(logits, targets, 0.1)
    assert tokens == pytest.approx(reference.token_losses(logits, targets).sum(), rel=1e-12)
    squares = np.log(np.exp(logits).sum(-1))[targets >= 0] ** 2
    assert objective - tokens == pytest.approx(0.1 * squares.sum(), rel=1e-12)


def test_chunks_of_logits_change_no_loss_and_no_gradient(twin):
    """Chunks of the logits change neither the losses nor their gradients in the hidden state and the head."""
    values = Model(d_model=8, n_layers=1, tie_embeddings=False, init_std=1.0, logit_softcap=2.0, z_loss=0.1)
    (hidden,) = numbers((2, 7, 8))
    targets = np.random.default_rng(1).integers(0, 11, (2, 7))
    targets[0, 1:4], targets[1, -2:] = -1, -1
    whole = twin.loss_and_gradients(values, 11, hidden, targets, 0)
    for chunk in (2, 5, 100):  # of 14 tokens; three in a row, and the last two, have no target
        for actual, expected in zip(twin.loss_and_gradients(values, 11, hidden, targets, chunk), whole, strict=True):
            np.testing.assert_allclose(actual, expected, **TOLERANCE, err_msg=str(chunk))
