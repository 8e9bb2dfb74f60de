"""Tables of positions against Hugging Face transformers and against the papers."""

import numpy as np
import pytest

from slm_core.config import Attention, Model, Position
from slm_core.config.layers import resolve
from slm_core.model.positions import alibi_slopes, rotation, t5_buckets

CONTEXT = 64
SCALED = {
    "none": (Position(theta=500.0), dict(rope_type="default")),
    "linear": (Position(theta=500.0, scaling="linear", scaling_factor=4.0), dict(rope_type="linear", factor=4.0)),
    "yarn": (
        Position(theta=500.0, scaling="yarn", scaling_factor=4.0, original_context=16),
        dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16),
    ),
    "yarn, every field": (
        Position(
            theta=1e6, scaling="yarn", scaling_factor=8.0, original_context=32, beta_fast=4.0, beta_slow=0.5,
            attention_factor=1.5, truncate=False,
        ),
        dict(
            rope_type="yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5,
            attention_factor=1.5, truncate=False,
        ),
    ),
    "llama3": (
        Position(theta=500.0, scaling="llama3", scaling_factor=8.0, original_context=32, high_freq_factor=3.0),
        dict(
            rope_type="llama3", factor=8.0, original_max_position_embeddings=32, low_freq_factor=1.0,
            high_freq_factor=3.0,
        ),
    ),
}  # fmt: skip
"""{name: (our fields, rope_parameters of transformers)}."""


def model(position: Position, heads: int = 2, head_dim: int = 32) -> Model:
    return resolve(Model(d_model=64, attention=Attention(n_heads=heads, head_dim=head_dim), position=position))


@pytest.mark.parametrize("name", SCALED)
def test_rotation_is_that_of_transformers(name):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    position, parameters = SCALED[name]
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=2, head_dim=32, max_position_embeddings=CONTEXT,
        rope_parameters=parameters | {"rope_theta": position.theta},
    )  # fmt: skip
    rotary = LlamaRotaryEmbedding(config)
    angle = np.outer(np.arange(CONTEXT), rotary.inv_freq.double().numpy())
    cos, sin = rotation(model(position), CONTEXT)
    np.testing.assert_allclose(cos, rotary.attention_scaling * np.cos(angle), atol=2e-5)
    np.testing.assert_allclose(sin, rotary.attention_scaling * np.sin(angle), atol=2e-5)


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


@pytest.mark.parametrize("heads", [1, 2, 6, 8, 12])
def test_alibi_slopes_are_those_of_transformers(heads):
    import torch
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    expected = build_alibi_tensor(torch.ones(1, 3), heads, torch.float64).numpy().reshape(heads, 3)
    np.testing.assert_allclose(np.outer(alibi_slopes(heads), np.arange(3)), expected, rtol=1e-6)


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (4, 3)])
def test_t5_buckets_are_those_of_transformers(buckets, max_distance):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(300)
    expected = T5Attention._relative_position_bucket(-distance, False, buckets, max_distance).numpy()
    np.testing.assert_array_equal(t5_buckets(buckets, max_distance, 300), expected)
