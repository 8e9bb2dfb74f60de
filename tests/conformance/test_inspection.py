"""What an evaluator shows of its model: attention weights, streams, the logit lens, and what each module costs."""

import numpy as np
import pytest

from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.protocols import LOGITS
from tests.conformance.small_engine import CONFIG, VOCAB

MIXED = {
    "model.n_layers": 2, "data.seq_len": 9, "model.tie_embeddings": False, "model.logit_softcap": 3.0,
    "model.norm.placement": "sandwich",
    "model.pattern": "attention.window=3,attention.sinks=true,attention.softcap=2.0 | attention.kind=differential",
}  # fmt: skip
TOKENS = np.random.default_rng(1).integers(0, VOCAB, (3, 6)).astype(np.int32)


@pytest.fixture
def model(twin):
    return twin.Evaluator(CONFIG, VOCAB)


def test_each_query_shares_out_its_weight_among_the_keys_that_it_sees(model):
    inspection = model.inspect(TOKENS)
    assert list(inspection.streams) == ["layers.0"] and inspection.streams["layers.0"].shape == (3, 6, 8)
    (weights,) = inspection.weights.values()
    assert list(inspection.weights) == ["layers.0.attention.attend"] and weights.shape == (3, 2, 6, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-14)
    assert not np.triu(weights, 1).any() and (weights[..., *np.tril_indices(6)] > 0).all()


def test_the_lens_of_the_last_layer_is_the_models_own_prediction(model):
    logs = model.lens(model.inspect(TOKENS).streams["layers.0"])
    np.testing.assert_allclose(np.exp(logs).sum(-1), 1, rtol=1e-14)
    own, greedy = model.score(TOKENS)
    np.testing.assert_allclose(picked(logs), own, rtol=1e-13)
    np.testing.assert_array_equal(logs[:, :-1].argmax(-1) == TOKENS[:, 1:], greedy)


def test_other_weights_show_another_inside(model):
    before = model.inspect(TOKENS)
    changed = {name: np.array(weight) * 1.5 for name, weight in state_of(model).items()}
    model.load(changed)
    after = model.inspect(TOKENS)
    assert all(abs(after.weights[path] - before.weights[path]).max() > 1e-6 for path in before.weights)
    np.testing.assert_allclose(picked(model.lens(after.streams["layers.0"])), model.score(TOKENS)[0], rtol=1e-13)
    with pytest.raises(UserError, match="embed.weight"):
        model.load({name: weight for name, weight in changed.items() if name != "embed.weight"})


def test_a_module_costs_what_its_products_take(model):
    """By hand: 2 operations per weight and token; scores and their use, 2 each per pair of tokens and number."""
    modules = {module.path: module for module in model.modules(5)}
    assert list(modules)[:3] == ["", "embed", "dropout"] and list(modules)[-2:] == ["final_norm", LOGITS]
    halves = ["layers.0.attention", "layers.0.mlp", LOGITS]
    scores, projections, hidden = 2 * (2 * 5 * 5 * 8), 4 * (2 * 5 * 8 * 8), CONFIG.model.mlp.hidden or 32
    assert modules["layers.0.attention.attend"].flops == scores
    assert modules["layers.0.attention"].flops == scores + projections
    assert modules["layers.0.mlp"].flops == 3 * (2 * 5 * 8 * hidden)
    assert modules[LOGITS].flops == 2 * 5 * 8 * VOCAB and modules[LOGITS].output == (1, 5, VOCAB)
    assert modules[""].flops == sum(modules[path].flops for path in halves)
    query = modules["layers.0.attention.q_proj"]
    assert query == ("layers.0.attention.q_proj", "Linear", {"weight": (8, 8)}, 640, (1, 5, 8), 320)
    assert modules[LOGITS].parameters == {}  # tied


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["dot_product", "flash", "fused"])
def test_windows_sinks_and_caps_are_in_the_weights(twin, kernel):
    model = twin.Evaluator(with_values(CONFIG, MIXED | {"model.attention.kernel": kernel}), VOCAB)
    model.load({name: weight + 0.1 * weight.std() for name, weight in state_of(model).items()})
    inspection = model.inspect(TOKENS)
    windowed, *maps = inspection.weights.values()
    assert list(inspection.weights)[1:] == [f"layers.1.attention.attend_{i}" for i in (1, 2)]
    assert (windowed.sum(-1) < 0.99).all() and not np.tril(windowed, -3).any()
    assert (windowed[..., [2, 3], [0, 1]] > 0).all()
    for weights in maps:
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-14)
    logs = model.lens(inspection.streams["layers.1"])
    np.testing.assert_allclose(picked(logs), model.score(TOKENS)[0], rtol=1e-12)
    early = model.lens(inspection.streams["layers.0"])
    assert abs(picked(early) - picked(logs)).max() > 1e-4
    (logits,) = (module for module in model.modules(9) if module.path == LOGITS)
    assert logits.flops == 2 * 9 * 8 * VOCAB and logits.parameters == {"weight": (8, VOCAB)}


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["float16", "bfloat16"])
def test_half_precisions_are_shown_in_float32(twin, compute):
    values = {"precision.params": "float32", "precision.compute": compute}
    model = twin.Evaluator(with_values(CONFIG, values), VOCAB)
    inspection = model.inspect(TOKENS)
    logs = model.lens(inspection.streams["layers.0"])
    for array in (*inspection.weights.values(), *inspection.streams.values(), logs):
        assert array.dtype == np.float32
    np.testing.assert_allclose(inspection.weights["layers.0.attention.attend"].sum(-1), 1, atol=2e-2)
    np.testing.assert_allclose(picked(logs), model.score(TOKENS)[0], rtol=1e-3)


def picked(logs: np.ndarray) -> np.ndarray:
    """Selects log p of the tokens that follow."""
    return np.take_along_axis(logs[:, :-1], TOKENS[:, 1:, None], -1)[..., 0]


def state_of(model) -> dict[str, np.ndarray]:
    """Returns the parameters of an evaluator."""
    return {name: np.array(p.detach().numpy() if hasattr(p, "detach") else p) for name, p in model.params.items()}
