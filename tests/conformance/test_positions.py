"""Positions against the papers' formulas in float64."""

import numpy as np

from slm_core.config import Attention, Position
from slm_core.config.widths import rotated
from slm_core.model.positions import rotation
from tests.conformance.arrays import TOLERANCE, layer, numbers
from tests.reference import layers as reference


def test_rope_turns_pairs_of_features(twin):
    (x,) = numbers((2, 3, 2, 8))
    for fraction, theta, factor in ((1.0, 1e4, 1.0), (0.5, 100.0, 1.0), (0.25, 1e4, 4.0)):
        scaling = {} if factor == 1 else dict(scaling="linear", scaling_factor=factor)
        position = Position(theta=theta, fraction=fraction, **scaling)
        wide = layer(attention=Attention(n_heads=2, head_dim=8), position=position)
        expected = reference.rope(x, 4, theta=theta, fraction=fraction, factor=factor)
        np.testing.assert_allclose(twin.apply("POSITION", "rope", (wide, 9), {}, x, 4), expected, **TOLERANCE)


def test_yarn_stretches_what_it_turns(twin):
    """YaRN's tables turn and stretch: a rotated vector is as long as before, times 0.1 ln(factor) + 1."""
    position = Position(scaling="yarn", scaling_factor=4.0)
    spec = layer(attention=Attention(n_heads=2, head_dim=8), position=position)
    (x,) = numbers((2, 3, 2, 8))
    actual = twin.apply("POSITION", "rope", (spec, 16), {}, x, 4)
    assert rotated(spec) == 8 and rotation(spec, 16)[0].shape == (16, 4)
    length = np.linalg.norm(x, axis=-1) * (0.1 * np.log(4) + 1)
    np.testing.assert_allclose(np.linalg.norm(actual, axis=-1), length, **TOLERANCE)


def test_alibi_falls_with_the_distance(twin):
    """With two heads the slopes are 2^-4 and 2^-8."""
    table = twin.apply("POSITION", "alibi", (layer(position=Position(kind="alibi")), 9), {}, twin.FLOAT64)
    np.testing.assert_allclose(table, -np.outer([1 / 16, 1 / 256], np.arange(9)), **TOLERANCE)


def test_t5_has_one_bias_per_bucket_of_distances(twin):
    """8 buckets up to distance 16: four of one distance, then 4 to 5, 6 to 7, 8 to 11, and all from 12 on."""
    (weight,) = numbers((8, 2))
    spec = layer(position=Position(kind="t5", buckets=8, max_distance=16))
    buckets = [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7]
    actual = twin.apply("POSITION", "t5", (spec, 19), {"weight": weight}, twin.FLOAT64)
    np.testing.assert_allclose(actual, weight[buckets].T, **TOLERANCE)


def test_sinusoidal_adds_the_table_of_the_paper(twin):
    (x,) = numbers((2, 3, 8))
    table = reference.sinusoidal(9, 8, 100.0)
    spec = layer(position=Position(kind="sinusoidal", theta=100.0))
    np.testing.assert_allclose(twin.apply("POSITION", "sinusoidal", (spec, 9), {}, x, 4), x + table[4:7], **TOLERANCE)


def test_learned_adds_its_rows(twin):
    x, table = numbers((2, 3, 8), (9, 8))
    spec = layer(position=Position(kind="learned"))
    actual = twin.apply("POSITION", "learned", (spec, 9), {"weight": table}, x, 4)
    np.testing.assert_allclose(actual, x + table[4:7], **TOLERANCE)
