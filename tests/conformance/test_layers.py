"""Norms, MLPs, their places in a block and dropout, against the papers' formulas in float64."""

import numpy as np

from slm_core.config import Attention, Config, Data, Mixer, Mlp, Model, Norm, Position
from slm_core.config.layers import resolve
from slm_core.model import dropout
from tests.conformance.arrays import TOLERANCE, layer, numbers
from tests.reference import layers as reference


def test_layernorm_is_the_formula(twin):
    """A mean far from 0 reveals a variance that is computed in one pass."""
    x, weight, bias = numbers((4, 8), (8,), (8,))
    x = x + 1e4
    norm = Norm(kind="layernorm", eps=0.1, bias=True)
    actual = twin.apply("NORM", "layernorm", (8, norm), {"weight": weight, "bias": bias}, x)
    np.testing.assert_allclose(actual, reference.layernorm(x, weight, bias, 0.1), rtol=1e-9, atol=1e-9)


def test_rmsnorm_is_the_formula(twin):
    x, weight = numbers((4, 8), (8,))
    for form, weights, scale in (("scale", {"weight": weight}, weight), ("one_plus", {"weight": weight}, 1 + weight)):
        actual = twin.apply("NORM", "rmsnorm", (8, Norm(eps=0.1, weight=form)), weights, x)
        np.testing.assert_allclose(actual, reference.rmsnorm(x, scale, 0.1), **TOLERANCE)
    actual = twin.apply("NORM", "rmsnorm", (8, Norm(eps=0.1, weight="none")), {}, x)
    np.testing.assert_allclose(actual, reference.rmsnorm(x, 1, 0.1), **TOLERANCE)


def test_dyt_is_the_formula(twin):
    x, alpha, weight, bias = numbers((4, 8), (1,), (8,), (8,))
    weights = {"alpha": alpha, "weight": weight, "bias": bias}
    actual = twin.apply("NORM", "dyt", (8, Norm(kind="dyt", bias=True)), weights, x)
    np.testing.assert_allclose(actual, reference.dyt(x, alpha, weight, bias), **TOLERANCE)


def test_dense_mlps_are_the_formula(twin):
    x, up, down, b, c = numbers((1, 3, 8), (8, 12), (12, 8), (12,), (8,))
    weights = {"up_proj.weight": up, "up_proj.bias": b, "down_proj.weight": down, "down_proj.bias": c}
    activations = {
        ("gelu", "erf"): lambda x: reference.gelu(x, "erf"),
        ("gelu", "tanh"): lambda x: reference.gelu(x, "tanh"),
        ("relu", "erf"): lambda x: np.maximum(x, 0),
        ("relu2", "erf"): lambda x: np.maximum(x, 0) ** 2,
    }
    for (kind, gelu), f in activations.items():
        spec = layer(mlp=Mlp(kind=kind, gelu=gelu, hidden=12, bias=True))
        actual = twin.apply("MLP", kind, (spec,), weights, x)
        np.testing.assert_allclose(actual, f(x @ up + b) @ down + c, **TOLERANCE)


def test_gated_mlps_are_the_formula(twin):
    x, gate, up, down = numbers((1, 3, 8), (8, 12), (8, 12), (12, 8))
    weights = {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": down}
    activations = {
        ("swiglu", "erf"): reference.silu,
        ("geglu", "erf"): lambda x: reference.gelu(x, "erf"),
        ("geglu", "tanh"): lambda x: reference.gelu(x, "tanh"),
    }
    for (kind, gelu), f in activations.items():
        actual = twin.apply("MLP", kind, (layer(mlp=Mlp(kind=kind, gelu=gelu, hidden=12)),), weights, x)
        np.testing.assert_allclose(actual, f(x @ gate) * (x @ up) @ down, **TOLERANCE)


def test_clipped_swiglu_is_the_formula(twin):
    """Inputs are on both sides of every bound. There are biases."""
    x, gate, up, down, b, c, d = numbers((1, 9, 8), (8, 12), (8, 12), (12, 8), (12,), (12,), (8,))
    weights = {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": down}
    weights |= {"gate_proj.bias": b, "up_proj.bias": c, "down_proj.bias": d}
    x = 2 * x
    g, u = x @ gate + b, x @ up + c
    assert np.mean(g > 7) > 0.05 and np.mean(u > 7) > 0.05 and np.mean(u < -7) > 0.05 and np.mean(np.abs(g) < 7) > 0.5
    spec = layer(mlp=Mlp(kind="clipped_swiglu", hidden=12, bias=True))
    actual = twin.apply("MLP", "clipped_swiglu", (spec,), weights, x)
    np.testing.assert_allclose(actual, reference.clipped_swiglu(g, u) @ down + d, **TOLERANCE)


def test_norms_are_placed_as_the_name_says(twin):
    """The parts are functions of one number, so that every order of calls gives another result."""
    a, a2, m, m2 = ((lambda x, i=i: (i + 2) * x + i) for i in range(4))
    f, g = (lambda x: x**2), (lambda x: 3 * x + 1)
    h = {
        "pre": lambda x: x + f(a(x)) / 2,
        "post": lambda x: a(x + f(x) / 2),
        "sandwich": lambda x: x + a2(f(a(x))) / 2,
        "output": lambda x: x + a(f(x)) / 2,
    }
    expected = {
        "pre": lambda x: h["pre"](x) + g(m(h["pre"](x))) / 2,
        "post": lambda x: m(h["post"](x) + g(h["post"](x)) / 2),
        "sandwich": lambda x: h["sandwich"](x) + m2(g(m(h["sandwich"](x)))) / 2,
        "output": lambda x: h["output"](x) + m(g(h["output"](x))) / 2,
        "parallel": lambda x: x + f(a(x)) / 2 + g(m(x)) / 2,
        "parallel_shared": lambda x: x + f(a(x)) / 2 + g(a(x)) / 2,
    }

    norms = dict(attention_norm=a, attention_output_norm=a2, mlp_norm=m, mlp_output_norm=m2, add=lambda x, y: x + y / 2)
    block = type("Block", (twin.Module,), {name: staticmethod(norm) for name, norm in norms.items()})()
    assert twin.PLACEMENT.keys() == expected.keys()
    for name, (place, _) in twin.PLACEMENT.items():
        assert float(place(block, twin.array(np.array(1.5)), f, g)) == expected[name](1.5), name


def test_embedding_norm_acts_before_positions(twin):
    """It acts on the scaled embedding, before a position is added; the blocks add nothing."""
    norm = dict(weight=(8,), bias=(8,))
    for placement, last in (("pre", ["final_norm"]), ("post", ["layers.0.attention_norm", "layers.0.mlp_norm"])):
        model = Model(
            d_model=8, n_layers=1, embed_scale=3.0, embed_norm=True, attention=Attention(n_heads=2),
            position=Position(kind="learned"), norm=Norm(kind="layernorm", bias=True, eps=0.5, placement=placement),
            mlp=Mlp(kind="relu2", hidden=12),
        )  # fmt: skip
        shapes = {"embed.weight": (11, 8), "position.weight": (9, 8)}
        shapes |= {f"layers.0.attention.{name}_proj.weight": (8, 8) for name in "qkvo"}
        shapes |= {"layers.0.mlp.up_proj.weight": (8, 12), "layers.0.mlp.down_proj.weight": (12, 8)}
        norms = {"embed_norm", "layers.0.attention_norm", "layers.0.mlp_norm", *last}
        shapes |= {f"{path}.{leaf}": shape for path in sorted(norms) for leaf, shape in norm.items()}
        w = dict(zip(shapes, numbers(*shapes.values()), strict=True))
        for name in ("layers.0.attention.o_proj.weight", "layers.0.mlp.down_proj.weight"):
            w[name] = 0 * w[name]

        def normed(x, path, w=w):
            return reference.layernorm(x, w[f"{path}.weight"], w[f"{path}.bias"], 0.5)

        tokens = np.array([[3, 0, 10, 3], [1, 1, 7, 5]])
        x = normed(3 * w["embed.weight"][tokens], "embed_norm") + w["position.weight"][:4]
        for path in last:
            x = normed(x, path)
        actual = twin.hidden(Config(model=model, data=Data(seq_len=9)), w, tokens)
        np.testing.assert_allclose(actual, x, **TOLERANCE)


def test_the_value_residual_is_of_the_first_layer(twin):
    """A layer between that adds nothing to the stream changes no later layer by its values."""
    attention = Attention(n_heads=2, value_residual=True)
    config = Config(model=Model(d_model=8, n_layers=3, attention=attention, mlp=Mlp(hidden=12)), data=Data(seq_len=9))
    shapes = {"embed.weight": (11, 8), "final_norm.weight": (8,)}
    for i in range(3):
        layer = {f"attention.{name}_proj.weight": (8, 8) for name in "qkvo"} | {"attention_norm.weight": (8,)}
        layer |= {"mlp.gate_proj.weight": (8, 12), "mlp.up_proj.weight": (8, 12), "mlp.down_proj.weight": (12, 8)}
        layer |= {"mlp_norm.weight": (8,)} | ({"attention.value_residual.weight": (2,)} if i else {})
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    weights = dict(zip(shapes, numbers(*shapes.values()), strict=True))
    weights["layers.1.attention.o_proj.weight"] *= 0
    before = twin.hidden(config, weights, np.array([[3, 0, 10, 3]]))
    for layer, changes in ((0, True), (1, False), (2, True)):
        name = f"layers.{layer}.attention.v_proj.weight"
        after = twin.hidden(config, weights | {name: 2 * weights[name]}, np.array([[3, 0, 10, 3]]))
        assert bool((after != before).any()) == changes


def test_logits_are_the_formula(twin):
    """The bias is added after the multiplier, which muP sets as well, and before the soft-cap."""
    hidden, embed, head, bias = numbers((2, 3, 8), (11, 8), (8, 11), (11,))
    for tied, cap, multiplier, base in ((True, 0.0, 1.0, 0), (True, 2.0, 0.5, 0), (False, 3.0, 0.5, 4)):
        model = Model(
            d_model=8, n_layers=1, tie_embeddings=tied, head_bias=True, logit_multiplier=multiplier, logit_softcap=cap,
            attention=Attention(n_heads=2), mlp=Mlp(hidden=12), mup_base_width=base,
        )  # fmt: skip
        weights = {"embed.weight": embed, "head_bias": bias, "final_norm.weight": np.ones(8)}
        weights |= {} if tied else {"head.weight": head}
        shapes = {f"attention.{name}_proj.weight": (8, 8) for name in "qkvo"}
        shapes |= {"mlp.gate_proj.weight": (8, 12), "mlp.up_proj.weight": (8, 12), "mlp.down_proj.weight": (12, 8)}
        shapes |= {"attention_norm.weight": (8,), "mlp_norm.weight": (8,)}
        weights |= {f"layers.0.{name}": np.zeros(shape) for name, shape in shapes.items()}
        expected = multiplier * (base / 8 if base else 1) * hidden @ (embed.T if tied else head) + bias
        expected = cap * np.tanh(expected / cap) if cap else expected
        actual = twin.logits(Config(model=model, data=Data(seq_len=9)), weights, hidden)
        np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_dropout_keeps_what_the_hash_says(twin):
    keys = dropout.site_keys(seed=7, step=3, n_layers=2)
    for key, rate in zip(keys.tolist(), (0.1, 0.5, 0.9, 0.0, 0.999), strict=True):
        for first_row, shape in ((0, (2, 3, 5)), (6, (2, 3, 5)), (400_000_000, (1, 3, 5))):
            expected = dropout.keep_mask(key, shape, first_row, rate)
            np.testing.assert_array_equal(twin.keep_mask(key, shape, first_row, rate), expected)


def test_linear_attention_without_any_feature_is_zero(twin):
    """In float32 the features of a very negative query are exactly 0, and so is the sum that divides them."""
    layer = resolve(Model(d_model=4, mixer=Mixer(kind="linear", n_heads=1)))
    weights = {f"{name}_proj.weight": -100 * np.eye(4, dtype=np.float32) for name in "qkvo"}
    y = twin.apply("MIXER", "linear", (layer, 9), weights, np.ones((1, 3, 4), np.float32), 0, None)
    np.testing.assert_array_equal(y, 0)
