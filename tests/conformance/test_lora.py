"""Adapters, and matrices that are stored in few bits."""

import numpy as np
import pytest

from slm_core.config import Attention, Config, Data, Finetune, Model, Optim, Precision, Run, Train
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.quantization import formats
from slm_core.runs.weights import evaluated, without_adapters
from tests.tiers import some_slow

VOCAB = 11
CONFIG = Config(
    model=Model(d_model=8, n_layers=2, attention=Attention(n_heads=2, bias=True), tie_embeddings=False),
    data=Data(seq_len=6),
    optim=Optim(clip_norm=0.5),
    finetune=Finetune(kind="lora", rank=2),
    train=Train(batch_size=4),
    precision=Precision(params="float64", compute="float64"),
    run=Run(device="cpu"),
)

STORED_AS = ("float", "int8", "nf4")
SHAPES = [(64, 64), (40, 6), (1, 2), (200, 90)]


def batch() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, (4, 7)).astype(np.int32)


def numbers(shape, dtype) -> np.ndarray:
    """Makes a matrix whose rows and columns have very different magnitudes."""
    rng = np.random.default_rng(shape[0])
    sizes = np.exp(rng.uniform(-20, 20, (shape[0], 1)) * (rng.random((shape[0], 1)) < 0.5))
    return (rng.standard_normal(shape) * sizes).astype(dtype)


@pytest.mark.parametrize("stored_as", formats.FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_dequantised_matrix_has_the_bits_of_the_specification(twin, stored_as, dtype, shape):
    for factor in (1.0, 0.0, 1e-30):
        parts = formats.FORMATS[stored_as].quantise(numbers(shape, dtype) * np.asarray(factor, dtype))
        actual, expected = twin.matrix(stored_as, parts), formats.FORMATS[stored_as].dequantise(**parts)
        assert actual.dtype == expected.dtype == dtype
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("stored_as", formats.FORMATS)
def test_a_product_and_its_gradient_use_the_dequantised_matrix(twin, stored_as):
    parts = formats.FORMATS[stored_as].quantise(np.random.default_rng(0).standard_normal((12, 10)))
    x, cotangent = (np.random.default_rng(1).standard_normal((5, width)) for width in (12, 10))
    y, gradient = twin.product(x, stored_as, parts, cotangent)
    matrix = formats.FORMATS[stored_as].dequantise(**parts)
    np.testing.assert_allclose(y, x @ matrix, rtol=1e-12)
    np.testing.assert_allclose(gradient, cotangent @ matrix.T, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_adapter_is_scaled_by_the_exact_number(twin, dtype):
    """(x A) alpha / rank is a float32 product in every dtype, and is rounded once."""
    x = np.random.default_rng(0).standard_normal((500, 3)).astype(np.float16).astype(np.float32)
    one, number = np.eye(3, dtype=np.float32), np.float32(5 / 3)
    y, gradient = twin.adapted(x, {"weight": 0 * one, "lora_a": one, "lora_b": one}, 5.0, dtype)
    expected = (x * number).astype(dtype)
    assert dtype == "float32" or (expected != x.astype(dtype) * number.astype(dtype)).any()
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient, np.full_like(x, number.astype(dtype)))


@pytest.mark.parametrize("stored_as", some_slow(STORED_AS, "float", "int8"))
def test_only_adapters_move(twin, stored_as):
    engine = twin.build(with_values(CONFIG, {"finetune.frozen": stored_as}), VOCAB)
    before = {name: np.array(value) for name, value in engine.export_state().items()}
    engine.train_step(batch(), 1e-2, 0)
    after = engine.export_state()
    moved = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    adapters = {name for name in before if name.startswith("params/") and "lora_" in name}
    assert {name for name in moved if name.startswith("params/")} == adapters
    assert len(adapters) == 2 * 2 * 7
    assert {name.removeprefix("optim/m/") for name in before if name.startswith("optim/m/")} == {
        name.removeprefix("params/") for name in adapters
    }
    assert ("params/layers.0.mlp.up_proj.weight" in before) == (stored_as == "float")
    assert "params/head.weight" in before


@pytest.mark.parametrize("stored_as", some_slow(STORED_AS, "float", "int8"))
def test_a_merged_model_is_the_trained_one(twin, stored_as):
    """New adapters do not change the base. After training, the merged model computes what the trained one does."""
    config = with_values(CONFIG, {"finetune.frozen": stored_as})
    base = {
        name.removeprefix("params/"): 5 * np.array(value)
        for name, value in twin.build(without_adapters(config), VOCAB).export_state().items()
        if name.startswith("params/")
    }
    engine = twin.build(config, VOCAB, base)
    if stored_as == "float":
        expected = twin.Evaluator(without_adapters(config), VOCAB, base).eval_step(batch())[0]
        assert engine.eval_step(batch())[0] == pytest.approx(expected, rel=1e-13)
    start = engine.eval_step(batch())[0]
    for step in range(3):
        engine.train_step(batch(), 1e-2, step)
    loss = engine.eval_step(batch())[0]
    assert loss < start
    merged = evaluated(engine.export_state(), config)
    assert twin.Evaluator(without_adapters(config), VOCAB, merged).eval_step(batch())[0] == pytest.approx(
        loss, rel=1e-12
    )
    with pytest.raises(UserError, match="head.weight"):
        twin.build(config, VOCAB, {name: value for name, value in base.items() if name != "head.weight"})


def test_the_facts_of_an_engine_tell_of_its_adapters(twin):
    engine = twin.build(with_values(CONFIG, {"finetune.frozen": "int8"}), VOCAB)
    state, facts = engine.export_state(), engine.facts()
    assert facts["fine-tuning"] == (
        "adapters of rank 2 on 14 of 15 linear layers, none on head; frozen: 14 in int8, 1 as floats (head)"
    )
    whole = twin.build(without_adapters(CONFIG), VOCAB).facts()
    assert "fine-tuning" not in whole
    trained = sum(value.size for name, value in state.items() if name.startswith("params/") and "lora_" in name)
    count = int(whole["parameters"].split()[0].replace(",", ""))
    assert facts["parameters"] == f"{count + trained:,}, of which {trained:,} train, in float64"
