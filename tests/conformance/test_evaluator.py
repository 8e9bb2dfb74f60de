"""An evaluator computes the losses and the text of its engine, without an optimizer."""

from importlib import import_module

import numpy as np
import pytest

from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.model.weights import Lazy
from slm_core.protocols import IGNORE, unscored
from slm_core.runs.weights import evaluated, without_adapters
from tests.conformance.small_engine import CONFIG, VOCAB, batch
from tests.reference.layers import token_losses
from tests.tiers import some_slow

EVALUATED = {
    "adamw": {},
    "averages": {"optim.kind": "schedule_free", "optim.schedule": "constant"},
    "averages beside a balance": {
        "optim.kind": "schedule_free", "optim.schedule": "constant",
        "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.mlp.top_k": 2, "model.mlp.balance_bias": 0.01,
    },
    "loss chunks": {"memory.loss_chunk": 5},
    "bfloat16": {"precision.params": "float32", "precision.compute": "bfloat16"},
}  # fmt: skip
"""Overrides under which an evaluator must compute what its engine computes."""


def test_targets_to_ignore_do_not_count(twin):
    """Targets that are IGNORE, rows of them included, neither add to the loss nor to the number."""
    engine = twin.build(CONFIG, VOCAB)
    total, count, _ = engine.eval_step(batch())
    rows = [engine.eval_step(np.repeat(row[None], 4, 0)) for row in batch(ignored=False)]
    assert count == 3 + 6 + 6
    assert engine.eval_step(np.full((4, 7), IGNORE, np.int32)) == (0.0, 0, 0)
    whole = sum(total for total, *_ in rows[1:3]) / 4
    assert whole < total < whole + rows[0][0] / 4


@pytest.mark.parametrize("chunk", [0, 5])
def test_an_unscored_token_is_read_and_is_no_target(twin, chunk):
    """The model reads unscored tokens as what they are; the sums have the other targets alone."""
    engine = twin.build(with_values(CONFIG, {"memory.loss_chunk": chunk}), VOCAB)
    for step in range(5):
        engine.train_step(batch(), 1e-1, step)  # so that some predictions are right
    tokens, decoder = batch(ignored=False), engine.decoder()
    scored = np.random.default_rng(1).random(tokens.shape) < 0.5
    marked = np.where(scored, tokens, unscored(tokens))
    assert (unscored(marked[~scored]) == tokens[~scored]).all() and (marked[~scored] < IGNORE).all()
    nats, correct = 0.0, 0
    for row, counts in zip(tokens, scored, strict=True):
        logits = np.stack([decoder.prefill(row[: end + 1].tolist()) for end in range(len(row) - 1)])
        nats += token_losses(logits, np.where(counts[1:], row[1:], IGNORE)).sum()
        correct += (logits.argmax(-1) == row[1:])[counts[1:]].sum()
    measured = engine.eval_step(marked)
    assert measured.tokens == scored[:, 1:].sum() and 0 < measured.correct == correct
    assert measured.nats == pytest.approx(nats, rel=1e-12)


@pytest.mark.slow
def test_half_precisions_decode_close_to_float32(twin):
    """Either kernel decodes in either half precision: prefill and steps, close to float32."""
    for kernel in ("dot_product", "fused"):
        single = {"precision.params": "float32", "model.attention.kernel": kernel}
        logits = {}
        for compute in ("float32", "float16", "bfloat16"):
            decoder = twin.build(with_values(CONFIG, single | {"precision.compute": compute}), VOCAB).decoder()
            logits[compute] = np.stack([decoder.prefill([1, 2, 3]), decoder.step(4)]).astype(np.float32)
        for half in ("float16", "bfloat16"):
            np.testing.assert_allclose(logits[half], logits["float32"], atol=2e-3)


@pytest.mark.parametrize("name", some_slow(EVALUATED, "averages", "averages beside a balance", "bfloat16"))
def test_an_evaluator_computes_what_its_engine_computes(twin, name):
    """An evaluator with an engine's weights computes the same numbers, bitwise, without an optimizer."""
    config = with_values(CONFIG, EVALUATED[name])
    averages = config.optim.kind == "schedule_free"
    engine = twin.build(config, VOCAB)
    for step in range(3):
        engine.train_step(batch(), 1e-2, step)
    asked = set()
    state = {name: np.array(value) for name, value in engine.export_state().items()}
    stored = Lazy({name: lambda name=name: asked.add(name) or state[name] for name in state})
    other = twin.Evaluator(without_adapters(config), VOCAB, evaluated(stored, config))
    needed = ("params/", "optim/z/") if averages else ("params/",)
    assert asked == {name for name in state if name.startswith(needed)}
    assert not hasattr(other, "optimizer") and not hasattr(other, "scaler")
    assert engine.framework == "torch" or not hasattr(other, "state")
    expected, decoder = engine.decoder(), other.decoder()
    # XLA multiplies by a reciprocal and NumPy divides, so averages may differ in their last bit.
    close = {"rtol": 1e-12 if averages else 0, "atol": 0}
    np.testing.assert_allclose(other.eval_step(batch()), engine.eval_step(batch()), **close)
    np.testing.assert_allclose(decoder.prefill([1, 2, 3]), expected.prefill([1, 2, 3]), **close)
    np.testing.assert_allclose(decoder.step(4), expected.step(4), **close)
    same = ("framework", "device", "parameters", "compute")
    assert [other.facts()[name] for name in same] == [engine.facts()[name] for name in same]


def test_weights_of_another_model_are_refused(twin):
    """Weights of another model are refused, naming one; without weights they are the initial ones."""
    with pytest.raises(UserError, match="entry final_norm.weight is absent, this model has") as caught:
        twin.Evaluator(CONFIG, VOCAB, {"embed.weight": np.zeros((VOCAB, 8))})
    assert "\n" not in str(caught.value)
    assert twin.Evaluator(CONFIG, VOCAB).eval_step(batch()) == twin.Evaluator(CONFIG, VOCAB).eval_step(batch())


def scorer(twin, **fields):
    """Makes an evaluator of a model with sharp predictions."""
    return twin.Evaluator(with_values(CONFIG, {"model.init_std": 1.0, "model.dropout": 0.0} | fields), VOCAB)


@pytest.mark.parametrize("chunk", [0, 5, 100])
def test_scores_are_what_the_decoder_says_of_each_token(twin, chunk):
    """log p and the greedy choice of each target, in chunks of any size, against one decoded token at a time."""
    evaluator = scorer(twin, **{"memory.loss_chunk": chunk})
    tokens = batch(ignored=False)[:3, :6]  # neither a power of two
    logs, greedy = evaluator.score(tokens)
    decoder = evaluator.decoder()
    for row, log, is_greedy in zip(tokens.tolist(), logs, greedy, strict=True):
        logits = np.stack([decoder.prefill(row[:1]), *map(decoder.step, row[1:-1])])
        expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(log, expected[range(5), row[1:]], rtol=1e-12)
        np.testing.assert_array_equal(is_greedy, logits.argmax(-1) == row[1:])
    likeliest = np.concatenate([tokens[:, :1], np.repeat(logits.argmax(-1)[None, :1], 3, 0)], 1).astype(np.int32)
    assert evaluator.score(likeliest)[1][-1, 0] and not greedy.all()


@pytest.mark.parametrize("fields", [{}, {"model.attention.window": 5}], ids=["whole", "rolling"])
def test_a_prompt_of_any_length_is_read_up_to_the_end_of_the_context(twin, fields):
    """A prompt and the steps after it give the logits that one token at a time gives."""
    decoder, row = scorer(twin, **fields).decoder(), batch(ignored=False)[0, :6].tolist()
    expected = [decoder.prefill(row[:1]), *map(decoder.step, row[1:])]
    for length in range(1, 7):
        logits = [decoder.prefill(row[:length]), *map(decoder.step, row[length:])]
        np.testing.assert_allclose(logits, expected[length - 1 :], rtol=1e-11, atol=1e-12)


def test_scores_sum_to_the_loss(twin):
    evaluator = scorer(twin)
    logs, greedy = evaluator.score(batch())
    assert evaluator.eval_step(batch())[0] == pytest.approx(-logs.sum(), rel=1e-14)
    ignored = batch()[:, 1:] == IGNORE
    assert not logs[ignored].any() and not greedy[ignored].any()


def test_the_twins_score_alike():
    """In float64, on equal initial weights."""
    twins = [import_module(f"tests.conformance.twins.{name}") for name in ("torch", "flax")]
    (logs, greedy), (other_logs, other_greedy) = (scorer(twin).score(batch()) for twin in twins)
    np.testing.assert_allclose(logs, other_logs, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(greedy, other_greedy)
