"""Attention layers against the papers' formulas in float64."""

import numpy as np

from slm_core.config import Attention, Position
from tests.conformance.arrays import TOLERANCE, layer, named, numbers
from tests.reference import layers as reference


def test_grouped_query_attention_is_the_formula(twin):
    """It has QK-norm over all heads, values mixed with the first layer's, a gate per element, a scale and biases."""
    attention = Attention(
        n_heads=4, n_kv_heads=2, head_dim=3, qk_norm="rmsnorm", qk_norm_over="whole", value_residual=True,
        gate="element", scale=0.3, bias=True, output_bias=False,
    )  # fmt: skip
    x, first = numbers((2, 5, 8), (2, 5, 2, 3))
    w = named(
        q_proj__weight=(8, 12), q_proj__bias=(12,), k_proj__weight=(8, 6), k_proj__bias=(6,), v_proj__weight=(8, 6),
        v_proj__bias=(6,), o_proj__weight=(12, 8), q_norm__norm__weight=(12,), k_norm__norm__weight=(6,),
        value_residual__weight=(2,), gate__gate_proj__weight=(8, 12), gate__gate_proj__bias=(12,),
    )  # fmt: skip
    q, k, v = (x @ w[f"{name}_proj.weight"] + w[f"{name}_proj.bias"] for name in "qkv")
    q, k = (reference.rmsnorm(y, w[f"{name}_norm.norm.weight"], 1e-5) for name, y in (("q", q), ("k", k)))
    q, k, v = q.reshape(2, 5, 4, 3), k.reshape(2, 5, 2, 3), v.reshape(2, 5, 2, 3)
    mixed = w["value_residual.weight"][0] * v + w["value_residual.weight"][1] * first
    y = reference.attention(q, k, mixed, start=0, scale=0.3).reshape(2, 5, 12)
    y = y * reference.sigmoid(x @ w["gate.gate_proj.weight"] + w["gate.gate_proj.bias"]) @ w["o_proj.weight"]
    actual = twin.attention(layer(attention=attention, position=Position(kind="none")), 1, w, x, first)
    np.testing.assert_allclose(actual[0], y, **TOLERANCE)
    np.testing.assert_allclose(actual[1], v, **TOLERANCE)


def test_qk_norm_and_gate_act_per_head(twin):
    """Each head is scaled to length 1, and has one gate."""
    attention = Attention(n_heads=2, head_dim=3, qk_norm="l2", gate="head")
    (x,) = numbers((2, 5, 8))
    w = named(
        q_proj__weight=(8, 6), k_proj__weight=(8, 6), v_proj__weight=(8, 6), o_proj__weight=(6, 8),
        gate__gate_proj__weight=(8, 2),
    )  # fmt: skip
    q, k, v = ((x @ w[f"{name}_proj.weight"]).reshape(2, 5, 2, 3) for name in "qkv")
    q, k = (y / np.sqrt((y**2).sum(-1, keepdims=True) + 1e-5) for y in (q, k))
    y = (
        reference.attention(q, k, v, start=0, scale=3**0.5)
        * reference.sigmoid(x @ w["gate.gate_proj.weight"])[..., None]
    )
    actual = twin.attention(layer(attention=attention, position=Position(kind="none")), 0, w, x, None)[0]
    np.testing.assert_allclose(actual, y.reshape(2, 5, 6) @ w["o_proj.weight"], **TOLERANCE)


def test_latent_attention_is_the_formula(twin):
    attention = Attention(kind="mla", n_heads=2, head_dim=3, q_rank=6, kv_rank=7, rope_dim=4, v_dim=5)
    spec = layer(attention=attention, position=Position(theta=100.0))
    (x,) = numbers((2, 5, 8))
    w = named(
        q_down_proj__weight=(8, 6), q_latent_norm__weight=(6,), q_up_proj__weight=(6, 14),
        kv_down_proj__weight=(8, 7), kv_latent_norm__weight=(7,), k_rope_proj__weight=(8, 4),
        k_up_proj__weight=(7, 6), v_up_proj__weight=(7, 10), o_proj__weight=(10, 8),
    )  # fmt: skip
    angles = np.outer(np.arange(5), 100.0 ** (-np.arange(0, 4, 2) / 4))
    expected = reference.latent_attention(x, w, heads=2, angles=angles, eps=1e-5)
    np.testing.assert_allclose(twin.attention(spec, 0, w, x, None)[0], expected, **TOLERANCE)


def test_differential_attention_is_the_formula(twin):
    attention = Attention(kind="differential", n_heads=2, n_kv_heads=1, head_dim=3)
    spec = layer(attention=attention, position=Position(kind="none"))
    (x,) = numbers((2, 5, 8))
    w = named(
        q_proj__weight=(8, 12), k_proj__weight=(8, 6), v_proj__weight=(8, 6), o_proj__weight=(12, 8),
        lambda_q1=(3,), lambda_k1=(3,), lambda_q2=(3,), lambda_k2=(3,), head_norm__weight=(6,),
    )  # fmt: skip
    expected = reference.differential_attention(x, w, heads=2, kv_heads=1, layer=3, eps=1e-5)
    np.testing.assert_allclose(twin.attention(spec, 3, w, x, None)[0], expected, **TOLERANCE)
