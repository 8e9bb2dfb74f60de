"""Tables of positions against the papers; `tests/outside` has other libraries."""

import numpy as np
import pytest

from slm_core.config import Attention, Model, Position
from slm_core.config.layers import resolve
from slm_core.model.positions import log_retention, plain_rotation, rotation


def model(position: Position, heads: int = 2, head_dim: int = 32) -> Model:
    return resolve(Model(d_model=64, attention=Attention(n_heads=heads, head_dim=head_dim), position=position))


def test_ntk_divides_the_lowest_frequency_and_keeps_the_highest():
    unscaled, scaled = (
        np.arctan2(*rotation(model(position), 2)[::-1])[1]
        for position in (Position(), Position(scaling="ntk", scaling_factor=4.0))
    )
    assert scaled[0] == pytest.approx(unscaled[0]) and scaled[-1] == pytest.approx(unscaled[-1] / 4)
    assert (np.diff(scaled / unscaled) < 0).all()


def test_an_unset_original_context_is_the_context_over_the_factor():
    for scaling in ("yarn", "llama3"):
        given = Position(scaling=scaling, scaling_factor=4.0, original_context=16)
        unset = Position(scaling=scaling, scaling_factor=4.0)
        np.testing.assert_array_equal(rotation(model(given), 64), rotation(model(unset), 64))


def test_heads_of_retention_forget_a_thirty_second_a_sixty_fourth_and_so_on():
    """RetNet's equation 8 (https://arxiv.org/abs/2307.08621)."""
    np.testing.assert_allclose(np.exp(log_retention(4)), [31 / 32, 63 / 64, 127 / 128, 255 / 256], rtol=1e-15)


def test_retention_turns_as_rope_with_a_theta_of_ten_thousand():
    cos, sin = plain_rotation(6, 3)
    angle = np.outer(np.arange(3), [1, 10000 ** (-1 / 3), 10000 ** (-2 / 3)])
    np.testing.assert_allclose(np.stack([cos, sin]), [np.cos(angle), np.sin(angle)], rtol=1e-12)
