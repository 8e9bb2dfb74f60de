import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slm_core.errors import UserError
from slm_core.inference.sampling import generate, probabilities, sample, uniforms

LOGITS = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-30, 30))
settings.register_profile("quick", max_examples=60, deadline=None)
settings.load_profile("quick")
UNIFORM = st.floats(0, 1, exclude_max=True)


class CountingDecoder:
    """Its next token is the number of tokens since the last prefill, so that greedy text shows both."""

    def __init__(self, context, vocabulary=100):
        self.context, self.vocabulary, self.calls = context, vocabulary, []

    def _logits(self):
        return np.eye(self.vocabulary)[len(self.seen) % self.vocabulary]

    def prefill(self, tokens):
        assert 1 <= len(tokens) <= self.context
        self.seen = list(tokens)
        self.calls.append(("prefill", list(tokens)))
        return self._logits()

    def step(self, token):
        self.seen.append(token)
        assert len(self.seen) <= self.context
        self.calls.append(("step", token))
        return self._logits()


@given(LOGITS)
def test_temperature_zero_takes_the_first_of_the_largest(logits):
    assert sample(logits, 0.7, temperature=0) == int(np.flatnonzero(logits == logits.max())[0])


@given(LOGITS, UNIFORM, st.floats(1e-320, 5, allow_subnormal=True), st.integers(0, 50), st.floats(0.01, 1))
def test_only_tokens_of_some_probability_are_drawn(logits, uniform, temperature, top_k, top_p):
    token = sample(logits, uniform, temperature, top_k, top_p)
    assert probabilities(logits, temperature, top_k, top_p)[token] > 0
    assert token == sample(logits.copy(), uniform, temperature, top_k, top_p)


@given(LOGITS, st.integers(1, 50), st.floats(0.2, 5))
def test_top_k_keeps_the_k_largest(logits, k, temperature):
    kept = np.flatnonzero(probabilities(logits, temperature, top_k=k))
    assert len(kept) == min(k, logits.size)
    dropped = np.setdiff1d(np.arange(logits.size), kept)
    if dropped.size:
        assert logits[kept].min() >= logits[dropped].max()


@given(LOGITS, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_nucleus(logits, p):
    every, kept = probabilities(logits, 1.0), probabilities(logits, 1.0, top_p=p) > 0
    assert every[kept].sum() >= p - 1e-12
    assert every[kept].sum() - every[kept].min() < p + 1e-12
    if (~kept).any():
        assert logits[kept].min() >= logits[~kept].max()


def test_of_equal_tokens_the_lower_id_is_kept():
    assert np.flatnonzero(probabilities(np.zeros(8), 1.0, top_k=3)).tolist() == [0, 1, 2]
    assert np.flatnonzero(probabilities(np.zeros(8), 1.0, top_p=0.5)).tolist() == [0, 1, 2, 3]


def test_without_top_p_even_a_token_that_the_sum_does_not_show_is_kept():
    assert np.flatnonzero(probabilities(np.array([0.0, -60.0]), 1.0, top_k=1)).tolist() == [0]
    assert np.flatnonzero(probabilities(np.array([0.0, -60.0, -70.0]), 1.0, top_k=2)).tolist() == [0, 1]


def test_the_distribution_is_inverted_in_vocabulary_order():
    logits = np.log([0.1, 0.2, 0.0001, 0.7])
    logits[2] = -np.inf
    assert [sample(logits, u) for u in (0.0, 0.0999, 0.1001, 0.2999, 0.3001, 1 - 2**-53)] == [0, 0, 1, 1, 3, 3]


def test_frequencies_follow_the_probabilities():
    logits = np.array([0.0, 1.0, -1.0, 0.5])
    drawn = [sample(logits, u, temperature=0.7) for u in itertools.islice(uniforms(3), 20_000)]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), probabilities(logits, 0.7), atol=0.01)


def test_rounding_of_the_logits_does_not_change_the_text():
    logits = np.random.default_rng(0).normal(size=(200, 50))
    numbers = list(itertools.islice(uniforms(0), 200))
    exact = [sample(row, u, 0.8, 20, 0.9) for row, u in zip(logits, numbers, strict=True)]
    rounded = [sample(row, u, 0.8, 20, 0.9) for row, u in zip(logits.astype(np.float32), numbers, strict=True)]
    assert exact == rounded


def test_the_random_numbers_are_fixed_for_ever():
    assert list(itertools.islice(uniforms(0), 3)) == pytest.approx([0.01154675, 0.24154920, 0.11142586], abs=1e-8)
    assert list(itertools.islice(uniforms(5), 9)) == np.random.Generator(np.random.Philox(key=5)).random(9).tolist()
    assert next(uniforms(1)) != next(uniforms(0))
    assert all(0 <= u < 1 for u in itertools.islice(uniforms(7), 1000))


@pytest.mark.parametrize("logits", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_logits_that_are_not_a_distribution_are_refused(logits):
    with pytest.raises(FloatingPointError):
        sample(np.array(logits), 0.5)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"prompt": []}, "prompt=''"),
    ],
)
def test_bad_options_are_refused_before_the_first_token(options, field):
    arguments = {"prompt": [1], "max_tokens": 3} | options
    with pytest.raises(UserError, match=f"^{field}: "):
        generate(CountingDecoder(8), **arguments)


def test_a_full_context_is_read_anew_from_its_last_half():
    decoder = CountingDecoder(context=6)
    tokens = list(generate(decoder, [50, 51, 52, 53], 7, temperature=0))
    assert tokens == [4, 5, 6, 3, 4, 5, 6]
    assert decoder.calls == [
        ("prefill", [50, 51, 52, 53]), ("step", 4), ("step", 5),
        ("prefill", [4, 5, 6]), ("step", 3), ("step", 4), ("step", 5),
    ]  # fmt: skip


@pytest.mark.parametrize("context", [1, 2, 3])
def test_tiny_contexts_and_long_prompts(context):
    decoder = CountingDecoder(context)
    assert len(list(generate(decoder, [1, 2, 3, 4, 5], 6, temperature=0))) == 6
    assert decoder.calls[0] == ("prefill", [1, 2, 3, 4, 5][-context:])


def test_the_end_token_ends_the_text_and_nothing_is_computed_in_vain():
    assert list(generate(CountingDecoder(100), [0], 50, temperature=0, stop=4)) == [1, 2, 3]
    decoder = CountingDecoder(100)
    assert list(generate(decoder, [0], 0)) == [] and decoder.calls == []
    assert list(generate(CountingDecoder(100), [0], 1, temperature=0)) == [1]
    list(generate(decoder, [0], 3))
    assert len(decoder.calls) == 3  # the last token is not fed back


def test_the_seed_decides_the_text():
    texts = [list(generate(CountingDecoder(100), [0], 20, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
