"""What the layers of either twin must do, against the papers' formulas.

Each check takes a `twin`: `twin.kernel(name)` is a kernel on NumPy arrays, and `twin.apply(registry, kind, arguments,
weights, *inputs)` builds a component, gives it weights {name: array} and calls it on arrays; `twin.hidden(config,
weights, tokens)` does so with a whole model; `twin.loss_and_gradients(model, vocab, hidden, targets, chunk)` returns
both losses of a hidden state and the gradients, in it and in the head, of what is minimised.
"""

import numpy as np
import pytest

from slm_core.config import Attention, Config, Data, Mlp, Model, Norm, Position
from slm_core.config.layers import resolve
from slm_core.config.widths import rotated
from slm_core.model import dropout
from slm_core.model.positions import rotation
from tests.reference import layers as oracles

TOLERANCE = dict(rtol=1e-12, atol=1e-13)
KERNEL_CASES = [
    dict(kv_heads=kv_heads, start=start, window=window, softcap=softcap)
    for kv_heads in (1, 2, 4)
    for start, window, softcap in ((0, 0, 0.0), (0, 3, 0.0), (0, 0, 2.0), (3, 0, 0.0), (3, 2, 2.0))
]
"""Keys are start + time: as with a cache."""


def model(**sections) -> Model:
    """Returns a resolved model, 8 wide, of given sections."""
    return resolve(Model(d_model=8, **{"attention": Attention(n_heads=2)} | sections))


def numbers(*shapes):
    """Returns an array of each shape."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


def named(**shapes) -> dict[str, np.ndarray]:
    """Returns weights by name; "__" stands for a dot."""
    return dict(zip((name.replace("__", ".") for name in shapes), numbers(*shapes.values()), strict=True))


def check_kernel(kernel, kv_heads, start, window, softcap):
    """kernel(q, k, v, start=, scale=, window=, softcap=)."""
    time, width = 6, 5
    q, k, v = numbers((2, time, 4, width), (2, start + time, kv_heads, width), (2, start + time, kv_heads, width))
    options = dict(start=start, scale=0.7, window=window, softcap=softcap)
    np.testing.assert_allclose(kernel(q, k, v, **options), oracles.attention(q, k, v, **options), **TOLERANCE)


def check_kernel_with_everything(kernel):
    """A rolling cache that is not full, values of another width, biases by distance and sinks."""
    q, k, v, bias, sinks = numbers((2, 3, 4, 5), (2, 6, 2, 5), (2, 6, 2, 3), (4, 9), (4,))
    options = dict(start=2, keys_start=-1, scale=0.7, window=3, softcap=2.0, bias=bias, sinks=sinks)
    np.testing.assert_allclose(kernel(q, k, v, **options), oracles.attention(q, k, v, **options), **TOLERANCE)


def check_unwritten_cache_is_hidden(kernel):
    """Keys after the last query change nothing, however large."""
    q, k, v = numbers((1, 2, 4, 5), (1, 6, 2, 5), (1, 6, 2, 5))
    options = dict(start=2, scale=0.7, window=0, softcap=0.0)
    sound = kernel(q, k, v, **options)
    k[:, 4:], v[:, 4:] = 1e6, 1e6
    np.testing.assert_array_equal(kernel(q, k, v, **options), sound)


def check_rope(twin):
    (x,) = numbers((2, 3, 2, 8))
    for fraction, theta, factor in ((1.0, 1e4, 1.0), (0.5, 100.0, 1.0), (0.25, 1e4, 4.0)):
        scaling = {} if factor == 1 else dict(scaling="linear", scaling_factor=factor)
        position = Position(theta=theta, fraction=fraction, **scaling)
        wide = model(attention=Attention(n_heads=2, head_dim=8), position=position)
        expected = oracles.rope(x, 4, theta=theta, fraction=fraction, factor=factor)
        np.testing.assert_allclose(twin.apply("POSITION", "rope", (wide, 9), {}, x, 4), expected, **TOLERANCE)


def check_alibi(twin):
    """With two heads the slopes are 2^-4 and 2^-8."""
    table = twin.apply("POSITION", "alibi", (model(position=Position(kind="alibi")), 9), {}, twin.float64)
    np.testing.assert_allclose(table, -np.outer([1 / 16, 1 / 256], np.arange(9)), **TOLERANCE)


def check_t5(twin):
    """8 buckets up to distance 16: four of one distance, then 4 to 5, 6 to 7, 8 to 11, and all from 12 on."""
    (weight,) = numbers((8, 2))
    config = model(position=Position(kind="t5", buckets=8, max_distance=16))
    buckets = [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7]
    found = twin.apply("POSITION", "t5", (config, 19), {"weight": weight}, twin.float64)
    np.testing.assert_allclose(found, weight[buckets].T, **TOLERANCE)


def check_sinusoidal(twin):
    (x,) = numbers((2, 3, 8))
    table = oracles.sinusoidal(9, 8, 100.0)
    config = model(position=Position(kind="sinusoidal", theta=100.0))
    np.testing.assert_allclose(twin.apply("POSITION", "sinusoidal", (config, 9), {}, x, 4), x + table[4:7], **TOLERANCE)


def check_learned(twin):
    x, table = numbers((2, 3, 8), (9, 8))
    config = model(position=Position(kind="learned"))
    found = twin.apply("POSITION", "learned", (config, 9), {"weight": table}, x, 4)
    np.testing.assert_allclose(found, x + table[4:7], **TOLERANCE)


def check_layernorm(twin):
    """A mean far from 0 shows a variance taken in one pass."""
    x, weight, bias = numbers((4, 8), (8,), (8,))
    x = x + 1e4
    norm = Norm(kind="layernorm", eps=0.1, bias=True)
    found = twin.apply("NORM", "layernorm", (8, norm), {"weight": weight, "bias": bias}, x)
    np.testing.assert_allclose(found, oracles.layernorm(x, weight, bias, 0.1), rtol=1e-9, atol=1e-9)


def check_rmsnorm(twin):
    x, weight = numbers((4, 8), (8,))
    for form, weights, scale in (("scale", {"weight": weight}, weight), ("one_plus", {"weight": weight}, 1 + weight)):
        found = twin.apply("NORM", "rmsnorm", (8, Norm(eps=0.1, weight=form)), weights, x)
        np.testing.assert_allclose(found, oracles.rmsnorm(x, scale, 0.1), **TOLERANCE)
    found = twin.apply("NORM", "rmsnorm", (8, Norm(eps=0.1, weight="none")), {}, x)
    np.testing.assert_allclose(found, oracles.rmsnorm(x, 1, 0.1), **TOLERANCE)


def check_dyt(twin):
    x, alpha, weight, bias = numbers((4, 8), (1,), (8,), (8,))
    weights = {"alpha": alpha, "weight": weight, "bias": bias}
    found = twin.apply("NORM", "dyt", (8, Norm(kind="dyt", bias=True)), weights, x)
    np.testing.assert_allclose(found, np.tanh(alpha * x) * weight + bias, **TOLERANCE)


def check_dense_mlps(twin):
    x, up, down, b, c = numbers((1, 3, 8), (8, 12), (12, 8), (12,), (8,))
    weights = {"up_proj.weight": up, "up_proj.bias": b, "down_proj.weight": down, "down_proj.bias": c}
    activations = {
        ("gelu", "erf"): lambda x: oracles.gelu(x, "erf"),
        ("gelu", "tanh"): lambda x: oracles.gelu(x, "tanh"),
        ("relu2", "erf"): lambda x: np.maximum(x, 0) ** 2,
    }
    for (kind, gelu), f in activations.items():
        config = model(mlp=Mlp(kind=kind, gelu=gelu, hidden=12, bias=True))
        found = twin.apply("MLP", kind, (config,), weights, x)
        np.testing.assert_allclose(found, f(x @ up + b) @ down + c, **TOLERANCE)


def check_gated_mlps(twin):
    x, gate, up, down = numbers((1, 3, 8), (8, 12), (8, 12), (12, 8))
    weights = {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": down}
    activations = {
        ("swiglu", "erf"): oracles.silu,
        ("geglu", "erf"): lambda x: oracles.gelu(x, "erf"),
        ("geglu", "tanh"): lambda x: oracles.gelu(x, "tanh"),
    }
    for (kind, gelu), f in activations.items():
        found = twin.apply("MLP", kind, (model(mlp=Mlp(kind=kind, gelu=gelu, hidden=12)),), weights, x)
        np.testing.assert_allclose(found, f(x @ gate) * (x @ up) @ down, **TOLERANCE)


def check_clipped_swiglu(twin):
    """With inputs on both sides of every bound, and biases."""
    x, gate, up, down, b, c, d = numbers((1, 9, 8), (8, 12), (8, 12), (12, 8), (12,), (12,), (8,))
    weights = {"gate_proj.weight": gate, "up_proj.weight": up, "down_proj.weight": down}
    weights |= {"gate_proj.bias": b, "up_proj.bias": c, "down_proj.bias": d}
    x = 2 * x
    g, u = x @ gate + b, x @ up + c
    assert np.mean(g > 7) > 0.05 and np.mean(u > 7) > 0.05 and np.mean(u < -7) > 0.05 and np.mean(np.abs(g) < 7) > 0.5
    config = model(mlp=Mlp(kind="clipped_swiglu", hidden=12, bias=True))
    found = twin.apply("MLP", "clipped_swiglu", (config,), weights, x)
    np.testing.assert_allclose(found, oracles.clipped_swiglu(g, u) @ down + d, **TOLERANCE)


def check_embedding_norm(twin):
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
            return oracles.layernorm(x, w[f"{path}.weight"], w[f"{path}.bias"], 0.5)

        tokens = np.array([[3, 0, 10, 3], [1, 1, 7, 5]])
        x = normed(3 * w["embed.weight"][tokens], "embed_norm") + w["position.weight"][:4]
        for path in last:
            x = normed(x, path)
        found = twin.hidden(Config(model=model, data=Data(seq_len=9)), w, tokens)
        np.testing.assert_allclose(found, x, **TOLERANCE)


def check_grouped_query_attention(twin):
    """QK-norm over all heads, values mixed with the first layer's, a gate an element, a scale and biases."""
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
    q, k = (oracles.rmsnorm(y, w[f"{name}_norm.norm.weight"], 1e-5) for name, y in (("q", q), ("k", k)))
    q, k, v = q.reshape(2, 5, 4, 3), k.reshape(2, 5, 2, 3), v.reshape(2, 5, 2, 3)
    mixed = w["value_residual.weight"][0] * v + w["value_residual.weight"][1] * first
    y = oracles.attention(q, k, mixed, start=0, scale=0.3).reshape(2, 5, 12)
    y = y * oracles.sigmoid(x @ w["gate.gate_proj.weight"] + w["gate.gate_proj.bias"]) @ w["o_proj.weight"]
    found = twin.attention(model(attention=attention, position=Position(kind="none")), 1, w, x, first)
    np.testing.assert_allclose(found[0], y, **TOLERANCE)
    np.testing.assert_allclose(found[1], v, **TOLERANCE)


def check_qk_norm_by_head(twin):
    """Each head to length 1, with one gate a head."""
    attention = Attention(n_heads=2, head_dim=3, qk_norm="l2", gate="head")
    (x,) = numbers((2, 5, 8))
    w = named(
        q_proj__weight=(8, 6), k_proj__weight=(8, 6), v_proj__weight=(8, 6), o_proj__weight=(6, 8),
        gate__gate_proj__weight=(8, 2),
    )  # fmt: skip
    q, k, v = ((x @ w[f"{name}_proj.weight"]).reshape(2, 5, 2, 3) for name in "qkv")
    q, k = (y / np.sqrt((y**2).sum(-1, keepdims=True) + 1e-5) for y in (q, k))
    y = oracles.attention(q, k, v, start=0, scale=3**0.5) * oracles.sigmoid(x @ w["gate.gate_proj.weight"])[..., None]
    found = twin.attention(model(attention=attention, position=Position(kind="none")), 0, w, x, None)[0]
    np.testing.assert_allclose(found, y.reshape(2, 5, 6) @ w["o_proj.weight"], **TOLERANCE)


def check_latent_attention(twin):
    attention = Attention(kind="mla", n_heads=2, head_dim=3, q_rank=6, kv_rank=7, rope_dim=4, v_dim=5)
    config = model(attention=attention, position=Position(theta=100.0))
    (x,) = numbers((2, 5, 8))
    w = named(
        q_down_proj__weight=(8, 6), q_latent_norm__weight=(6,), q_up_proj__weight=(6, 14),
        kv_down_proj__weight=(8, 7), kv_latent_norm__weight=(7,), k_rope_proj__weight=(8, 4),
        k_up_proj__weight=(7, 6), v_up_proj__weight=(7, 10), o_proj__weight=(10, 8),
    )  # fmt: skip
    angles = np.outer(np.arange(5), 100.0 ** (-np.arange(0, 4, 2) / 4))
    expected = oracles.latent_attention(x, w, heads=2, angles=angles, eps=1e-5)
    np.testing.assert_allclose(twin.attention(config, 0, w, x, None)[0], expected, **TOLERANCE)


def check_differential_attention(twin):
    attention = Attention(kind="differential", n_heads=2, n_kv_heads=1, head_dim=3)
    config = model(attention=attention, position=Position(kind="none"))
    (x,) = numbers((2, 5, 8))
    w = named(
        q_proj__weight=(8, 12), k_proj__weight=(8, 6), v_proj__weight=(8, 6), o_proj__weight=(12, 8),
        lambda_q1=(3,), lambda_k1=(3,), lambda_q2=(3,), lambda_k2=(3,), head_norm__weight=(6,),
    )  # fmt: skip
    expected = oracles.differential_attention(x, w, heads=2, kv_heads=1, layer=3, eps=1e-5)
    np.testing.assert_allclose(twin.attention(config, 3, w, x, None)[0], expected, **TOLERANCE)


def check_placements(twin):
    """With functions of one number that tell every order of calls apart."""
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
    block = type("Block", (twin.module,), {name: staticmethod(norm) for name, norm in norms.items()})()
    assert twin.placements.keys() == expected.keys()
    for name, (place, _) in twin.placements.items():
        assert float(place(block, twin.array(np.array(1.5)), f, g)) == expected[name](1.5), name


def check_yarn_temperature(twin):
    """YaRN's tables turn and stretch: what is rotated is as long as before, times 0.1 ln(factor) + 1."""
    position = Position(scaling="yarn", scaling_factor=4.0)
    config = model(attention=Attention(n_heads=2, head_dim=8), position=position)
    (x,) = numbers((2, 3, 2, 8))
    found = twin.apply("POSITION", "rope", (config, 16), {}, x, 4)
    assert rotated(config) == 8 and rotation(config, 16)[0].shape == (16, 4)
    length = np.linalg.norm(x, axis=-1) * (0.1 * np.log(4) + 1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), length, **TOLERANCE)


def check_keep_mask(twin):
    keys = dropout.site_keys(seed=7, step=3, n_layers=2)
    for key, rate in zip(keys.tolist(), (0.1, 0.5, 0.9, 0.0, 0.999), strict=True):
        for first_row, shape in ((0, (2, 3, 5)), (6, (2, 3, 5)), (400_000_000, (1, 3, 5))):
            expected = dropout.keep_mask(key, shape, first_row, rate)
            np.testing.assert_array_equal(twin.keep_mask(key, shape, first_row, rate), expected)


def check_token_losses(twin):
    (logits,) = numbers((5, 7))
    logits, targets = 30 * logits, np.array([0, 6, -1, 3, -1])
    np.testing.assert_allclose(twin.token_losses(logits, targets), oracles.token_losses(logits, targets), **TOLERANCE)


def check_z_loss(twin):
    """What is minimised has z logsumexp^2 more for each target that counts; what is reported has not."""
    (logits,) = numbers((5, 7))
    targets = np.array([0, 6, -1, 3, -1])
    tokens, objective = twin.losses(logits, targets, 0.1)
    assert tokens == pytest.approx(oracles.token_losses(logits, targets).sum(), rel=1e-12)
    squares = np.log(np.exp(logits).sum(-1))[targets >= 0] ** 2
    assert objective - tokens == pytest.approx(0.1 * squares.sum(), rel=1e-12)


def check_loss_in_chunks(twin):
    """Chunks of the logits change neither the losses nor their gradients in the hidden state and the head."""
    values = Model(d_model=8, n_layers=1, tie_embeddings=False, init_std=1.0, logit_softcap=2.0, z_loss=0.1)
    (hidden,) = numbers((2, 7, 8))
    targets = np.random.default_rng(1).integers(0, 11, (2, 7))
    targets[0, 1:4], targets[1, -2:] = -1, -1
    whole = twin.loss_and_gradients(values, 11, hidden, targets, 0)
    for chunk in (2, 5, 100):  # of 14 tokens; three in a row, and the last two, have no target
        for found, expected in zip(twin.loss_and_gradients(values, 11, hidden, targets, chunk), whole, strict=True):
            np.testing.assert_allclose(found, expected, **TOLERANCE, err_msg=str(chunk))


CHECKS = [
    check_rope, check_alibi, check_t5, check_sinusoidal, check_learned, check_yarn_temperature, check_layernorm,
    check_rmsnorm, check_dyt, check_dense_mlps, check_gated_mlps, check_clipped_swiglu, check_embedding_norm,
    check_grouped_query_attention, check_qk_norm_by_head, check_latent_attention, check_differential_attention,
    check_placements, check_keep_mask, check_token_losses, check_z_loss, check_loss_in_chunks,
]  # fmt: skip
