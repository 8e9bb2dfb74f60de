"""The mixture of experts against loops over tokens and experts."""

import numpy as np
import pytest

from slm_core.config import Attention, Mlp, Model
from slm_core.config.layers import LayerSpec, resolve
from tests.conformance.arrays import TOLERANCE
from tests.reference import moe as reference
from tests.tiers import some_slow

CASES = {
    "softmax": dict(),
    "relu": dict(expert="relu", bias=True),
    "relu2": dict(expert="relu2", bias=True),
    "geglu": dict(expert="geglu", bias=True),
    "clipped": dict(expert="clipped_swiglu", shared_experts=1, bias=True),
    "biased router": dict(router_bias=True, router_z_loss=0.1),
    "groups": dict(experts=12, groups=4, top_groups=2, top_k=3),
    "groups, biases": dict(
        experts=6, groups=3, top_groups=1, router="sigmoid", router_bias=True, balance_bias=0.1, bias=True
    ),
    "shared": dict(shared_experts=2),
    "shared, gated": dict(shared_experts=2, shared_gate=True, renormalise=False),
    "shared gelu, biases": dict(expert="gelu", shared_experts=1, bias=True),
    "scores as they are": dict(renormalise=False, routed_scale=2.5),
    "sigmoids as they are": dict(renormalise=False, router="sigmoid"),
    "one choice": dict(top_k=1, router_z_loss=0.1),
    "one expert": dict(experts=1, top_k=1),
    "bias on softmax": dict(balance_bias=0.1, balance_loss=0.0),
    "all of it": dict(
        router="sigmoid",
        balance_bias=0.1,
        router_z_loss=0.2,
        shared_experts=1,
        shared_gate=True,
        bias=True,
        routed_scale=1.5,
        top_k=3,
    ),
}
SOME_CASES = some_slow(CASES, *set(CASES) - {"softmax", "groups, biases", "all of it"})
SHAPES = {"decoding": (1, 1), "several blocks per expert": (3, 80)}
"""Of batch and time."""


def build(**fields) -> LayerSpec:
    """Returns a layer, 8 wide, with a mixture of 5 experts, 6 wide."""
    mlp = Mlp(kind="moe", **dict(experts=5, top_k=2, hidden=6, balance_loss=0.3) | fields)
    return resolve(Model(d_model=8, attention=Attention(n_heads=2), mlp=mlp))


def random_weights(layer: LayerSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns weights {name: array} of order one that route tokens unevenly."""
    mlp, rng = layer.mlp, np.random.default_rng(seed)
    names = ["up_proj", "down_proj"] if mlp.expert in reference.DENSE else ["gate_proj", "up_proj", "down_proj"]
    shapes = {"router.weight": (layer.d_model, mlp.experts)}
    shapes |= {"router.bias": (mlp.experts,)} if mlp.router_bias else {}
    shapes |= {"balance": (mlp.experts,)} if mlp.balance_bias else {}
    shapes |= {"shared_gate.weight": (layer.d_model, 1)} if mlp.shared_gate else {}
    for prefix, experts, hidden in (("", (mlp.experts,), mlp.hidden), ("shared.", (), mlp.shared_experts * mlp.hidden)):
        for name in names if hidden else ():
            d_in, d_out = (hidden, layer.d_model) if name == "down_proj" else (layer.d_model, hidden)
            shapes[f"{prefix}{name}.weight"] = (*experts, d_in, d_out)
            shapes |= {f"{prefix}{name}.bias": (*experts, d_out)} if mlp.bias else {}
    # Large enough for clipped inputs to be clipped now and then.
    inward = 2.0 if mlp.expert == "clipped_swiglu" else 0.5
    return {
        name: (inward if "gate_proj" in name or "up_proj" in name else 0.5) * rng.standard_normal(shape)
        for name, shape in shapes.items()
    }


def inputs(layer: LayerSpec, shape: tuple[int, int], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.random.default_rng(seed).standard_normal((2, *shape, layer.d_model)))


@pytest.mark.parametrize("name", SOME_CASES)
def test_output_and_auxiliary_loss_are_the_formula(twin, name):
    """Loops over tokens and experts give the same output and auxiliary loss."""
    check_formula(twin, name, (2, 20))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_any_number_of_tokens_is_the_formula(twin, shape):
    check_formula(twin, "all of it", shape)


def check_formula(twin, name: str, shape: tuple[int, int]) -> None:
    layer = build(**CASES[name])
    weights, (x, dy) = random_weights(layer), inputs(layer, shape)
    y, auxiliary_loss, _ = twin.mixture(layer, weights, x, dy)
    np.testing.assert_allclose(y, reference.layer(layer.mlp, weights, x), **TOLERANCE)
    np.testing.assert_allclose(auxiliary_loss, reference.auxiliary_loss(layer.mlp, weights, x), **TOLERANCE)


@pytest.mark.parametrize("name", SOME_CASES)
def test_gradients_are_the_slopes_of_the_formula(twin, name):
    """Every gradient is the slope of the formula in a random direction."""
    layer = build(**CASES[name])
    mlp, weights, (x, dy) = layer.mlp, random_weights(layer), inputs(layer, (2, 20))
    gradients = twin.mixture(layer, weights, x, dy)[2]
    gradients.pop("balance", None)
    values = {name: value for name, value in weights.items() if name != "balance"} | {"x": x}
    assert gradients.keys() == values.keys()

    def objective(changed: dict[str, np.ndarray]) -> float:
        every = weights | changed
        x = every.pop("x", values["x"])
        return np.sum(reference.layer(mlp, every, x) * dy) + reference.auxiliary_loss(mlp, every, x)

    rng, step = np.random.default_rng(2), 1e-6
    for name, value in values.items():
        way = rng.standard_normal(value.shape)
        slope = (objective({name: value + step * way}) - objective({name: value - step * way})) / (2 * step)
        np.testing.assert_allclose(np.sum(gradients[name] * way), slope, rtol=1e-6, atol=1e-6, err_msg=name)


def test_no_token_is_dropped(twin):
    """All tokens may choose the same expert: each gets its output, and no other expert learns."""
    layer = build(top_k=1, balance_loss=0.0)
    weights, (x, dy) = random_weights(layer), inputs(layer, (4, 50))
    x[..., 0], weights["router.weight"][0] = 1, [0, 0, 0, 100, 0]
    y, _, gradients = twin.mixture(layer, weights, x, dy)
    expected = [reference.expert(layer.mlp, weights, token, index=3) for token in x.reshape(-1, 8)]
    np.testing.assert_allclose(y.reshape(-1, 8), expected, **TOLERANCE)
    for name in ("gate_proj.weight", "up_proj.weight", "down_proj.weight"):
        assert gradients[name][3].all() and not np.delete(gradients[name], 3, axis=0).any()


def test_of_equal_scores_the_lower_expert_is_chosen(twin):
    """Of equal scores the lower expert is chosen, by sorts that are stable even if they are long."""
    layer = build(experts=70, top_k=3)
    weights, (x, dy) = random_weights(layer), inputs(layer, (2, 9))
    weights["router.weight"] *= 0
    touched = twin.mixture(layer, weights, x, dy)[2]["up_proj.weight"].any((1, 2))
    np.testing.assert_array_equal(np.flatnonzero(touched), [0, 1, 2])


def test_groups_of_experts_are_chosen_by_their_two_best(twin):
    """The two best scores of a group decide, not its best alone; of equal groups the lower one is chosen."""
    token, rank = np.eye(1, 8)[None], [5, -1, 3, 2.9, 4, 1]

    def visited(logits: list[float], balance: float, **fields) -> list[int]:
        layer = build(experts=6, router="sigmoid", balance_bias=0.1, balance_loss=0.0, **fields)
        weights = random_weights(layer) | {"balance": np.full(6, balance)}
        weights["router.weight"] = np.outer(np.eye(8)[0], logits)
        return np.flatnonzero(twin.mixture(layer, weights, token, token)[2]["up_proj.weight"].any((1, 2))).tolist()

    for balance in (0.0, -2.0):  # below 0 is still better than outside
        assert visited(rank, balance) == [0, 4]
        assert visited(rank, balance, groups=2, top_groups=1) == [0, 2]
        assert visited(rank, balance, groups=3, top_groups=1) == [2, 3]
        assert visited(rank, balance, groups=3, top_groups=2) == [2, 4]
        assert visited(rank, balance, groups=3, top_groups=3) == [0, 4]
        assert visited([0] * 6, balance, groups=3, top_groups=1) == [0, 1]
        assert visited([-1, -1, 0, 0, 0, 0], balance, groups=3, top_groups=2, top_k=3) == [2, 3, 4]


def test_gradients_stop_beyond_the_bounds_of_clipped_inputs(twin):
    """A gradient passes at the bounds of clipped inputs, and is zero beyond them."""
    layer = build(expert="clipped_swiglu", experts=1, top_k=1, balance_loss=0.0)
    weights, x, dy = random_weights(layer), np.eye(1, 8)[None], inputs(layer, (1, 1))[1]
    gate, up = np.array([7.0, 7, 7, 8, 1, -9]), np.array([7.0, -7, 8, 1, -8, 1])
    weights["gate_proj.weight"][0, 0], weights["up_proj.weight"][0, 0] = gate, up
    gradients = twin.mixture(layer, weights, x, dy)[2]
    g, u, dh = np.minimum(gate, 7), np.clip(up, -7, 7), dy[0, 0] @ weights["down_proj.weight"][0].T
    s = 1 / (1 + np.exp(-1.702 * g))
    expected = {
        "gate_proj.weight": dh * (gate <= 7) * (1 + u) * s * (1 + 1.702 * g * (1 - s)),
        "up_proj.weight": dh * (np.abs(up) <= 7) * g * s,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(gradients[name][0, 0], value, **TOLERANCE)


def test_the_routing_bias_learns_from_the_load_alone(twin):
    """The routing bias adds nothing to the loss, and its gradient is the load's deviation from the mean."""
    layer = build(balance_bias=0.1, balance_loss=0.0)
    weights, (x, dy) = random_weights(layer), inputs(layer, (3, 20))
    _, auxiliary_loss, gradients = twin.mixture(layer, weights, x, dy)
    load = reference.load(layer.mlp, weights, x)
    assert auxiliary_loss == 0
    np.testing.assert_allclose(gradients["balance"], load - load.mean(), **TOLERANCE)
    assert np.ptp(load) > 0.3

    # With these counts 5 / 25 is not the floating-point mean of the loads.
    layer, counts = build(balance_bias=0.1, balance_loss=0.0, top_k=1), [5, 2, 8, 8, 2]
    weights, x = random_weights(layer), np.repeat(np.eye(5, 8), counts, axis=0)[None]
    weights["router.weight"], weights["balance"] = 9 * np.eye(8, 5), np.zeros(5)
    np.testing.assert_array_equal(np.sign(twin.mixture(layer, weights, x, x)[2]["balance"]), [0, -1, 1, 1, -1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precisions_route_as_float32_does(twin, dtype):
    """Half precisions compute what float32 does, to their rounding; the router stays wide, and so chooses the same."""
    layer = build(**CASES["all of it"])
    weights, (x, dy) = random_weights(layer), inputs(layer, (2, 30))
    x, dy = (array.astype(np.float16).astype(np.float32) for array in (x, dy))
    if dtype == "bfloat16":  # with 8 bits, so that casting changes no token's experts
        x, dy = ((array.view(np.uint32) & 0xFFFF0000).view(np.float32) for array in (x, dy))
    rounded, exact = (
        twin.mixture(layer, weights, x, dy, dtype),
        twin.mixture(layer, weights, x.astype(float), dy.astype(float)),
    )
    # The auxiliary loss is computed from x and the router alone.
    np.testing.assert_allclose(rounded[1], exact[1], rtol=1e-5)
    tolerance = {"float16": 5e-3, "bfloat16": 4e-2}[dtype]
    pairs = {"y": (rounded[0], exact[0])} | {name: (rounded[2][name], exact[2][name]) for name in exact[2]}
    for name, (a, b) in pairs.items():
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b), name


def test_training_evens_the_load(twin):
    """The routing bias alone evens the load while the experts learn tanh(x): no loss asks for balance."""
    layer = build(balance_bias=0.02, balance_loss=0.0, router="sigmoid")

    def excess(step: float) -> float:
        """Measures by which share the busiest expert exceeds the mean load, on unseen tokens after training."""
        weights = random_weights(layer, seed=3) | {"balance": np.zeros(layer.mlp.experts)}
        for update in range(100):
            x = inputs(layer, (4, 32), seed=update)[0] + 0.5  # so that tokens have preferences in common
            gradients = twin.mixture(layer, weights, x, twin.mixture(layer, weights, x, x)[0] - np.tanh(x))[2]
            rates = {name: 1e-3 * gradients[name] for name in weights} | {
                "balance": step * np.sign(gradients["balance"])
            }
            weights = {name: value - rates[name] for name, value in weights.items()}
        x = inputs(layer, (4, 32), seed=1000)[0] + 0.5
        return twin.mixture(layer, weights, x, x)[2]["balance"].max() / (layer.mlp.top_k / layer.mlp.experts)

    free, balanced = excess(0.0), excess(layer.mlp.balance_bias)
    assert free > 0.3 and balanced < 0.15, (free, balanced)
