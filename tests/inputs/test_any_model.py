"""Any valid config is the same function in both twins: random mixtures of components and options."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from parity.cases import ONCE, ONE_PASS, REGISTRIES, numerics, tiny
from parity.fields import choices, other_values, selecting
from parity.options import BASE, NEEDS
from parity.pair import Pair, release
from parity.suite import Result, checks_of, measure
from slm_core.config.fields import base_type, flatten
from slm_core.config.pattern import layer_fields
from slm_core.errors import UserError
from tests.inputs.answers import for_all
from tests.inputs.conditioning import sensitivity

ROUNDINGS, LARGEST = 8, 1e-8
"""How many times the sensitivity to the weights' last bits an error may be, and the largest that it may be."""

FIELDS = sorted(
    name for name in numerics() - {"model.pattern"} if choices(name) or other_values(name, flatten(BASE)[name])
)
PER_LAYER = [name for name in layer_fields() if f"model.{name}" in FIELDS]


def settings(name: str) -> st.SearchStrategy[dict]:
    """Returns overrides that set a field, and what makes it read."""
    values = choices(name) or other_values(name, flatten(BASE)[name])
    return st.sampled_from(values).map(lambda value: selecting(name, BASE) | NEEDS.get(value, {}) | {name: value})


def pattern() -> st.SearchStrategy[str]:
    """Returns a pattern of two entries, of which one sets a field of a layer."""

    def entry(name: str) -> st.SearchStrategy[str]:
        kind = base_type(layer_fields()[name].type)
        values = st.sampled_from(other_values(f"model.{name}", flatten(BASE)[f"model.{name}"]))
        return values.map(lambda value: f"{name}={str(value).lower() if kind is bool else value} | .")

    return st.one_of(st.just(""), st.just(""), st.sampled_from(PER_LAYER).flatmap(entry))


def models() -> st.SearchStrategy[dict]:
    """Returns overrides of BASE, most of them valid together: of the model, optimizer, memory and fine-tuning."""
    kinds = st.sampled_from([*REGISTRIES, "finetune.kind"]).flatmap(settings)
    options = st.sampled_from(FIELDS).flatmap(settings)
    parts = st.lists(st.one_of(kinds, options), min_size=2, max_size=5)
    merged = parts.map(lambda each: {name: value for part in each for name, value in part.items()})
    layers = st.sampled_from([1, 2, 3])
    return st.builds(lambda a, p, n: a | {"model.pattern": p, "model.n_layers": n}, merged, pattern(), layers)


@pytest.mark.parametrize(
    "count",
    [pytest.param(20, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.exhaustive)],
)
def test_the_twins_agree_on_any_valid_config(count):
    """Initial weights, logits, gradients, one update and decoding, in float64.

    Some random configs magnify rounding: an error above its tolerance must be as small as ROUNDINGS times what the last
    bits of the weights change in one twin alone.
    """
    refused, proven = [], []

    def check(overrides):
        if len(proven) == count:
            return
        try:
            case = replace(tiny("random", overrides, "model"), checks=ONCE, optimized=False)
        except UserError as error:
            refused.append(str(error))
            return
        pair = Pair(case, "float64")
        try:
            failed = [result for result in measure(pair, checks_of(case, "float64")) if not result.passed]
            assert [str(result) for result in failed if not rounding(pair, result)] == [], overrides
        finally:
            del pair
            release()
        proven.append(case)

    for_all(6 * count, check, overrides=models())
    assert len(proven) == count, f"{len(proven)} proven, {len(refused)} refused"


def rounding(pair: Pair, result: Result) -> bool:
    return result.error <= min(ROUNDINGS * sensitivity(pair, result.check), LARGEST)


def adapter_of_rank_1(**overrides) -> Pair:
    """A stream without norms that adapters of factor 16 magnify layer by layer: its gradients lose six digits."""
    values = {
        "finetune.kind": "lora", "finetune.rank": 1, "attention.kind": "differential", "attention.output_bias": True,
        "attention.bias": True, "norm.kind": "dyt", "norm.alpha": 2.0, "position.kind": "learned", "n_layers": 3,
        "logit_softcap": 0.5, **overrides,
    }  # fmt: skip
    return Pair(replace(tiny("ill-conditioned", values, "model"), checks=ONE_PASS, optimized=False), "float64")


@pytest.mark.slow
def test_rounding_is_told_from_a_fault():
    """With alpha / rank = 16 the last bits of the weights move gradients by 1e-10; with alpha / rank = 1 by 1e-14."""
    pair = adapter_of_rank_1()
    failed = [result for result in measure(pair, ONE_PASS) if not result.passed]
    assert {result.check for result in failed} == {"logits", "gradients"}
    assert all(rounding(pair, result) for result in failed)
    assert not any(rounding(pair, replace(result, error=100 * result.error)) for result in failed)
    del pair
    release()
    pair = adapter_of_rank_1(**{"finetune.alpha": 1.0})
    assert all(result.passed for result in measure(pair, ONE_PASS))
    assert sensitivity(pair, "gradients") < 1e-13


@pytest.mark.slow
def test_an_update_is_as_sensitive_as_its_norm_of_gradients():
    """The last bits of the weights move the norm by 1e-12 or more, and what the update makes by 1e-13 at most."""
    values = {
        "mixer.kind": "gla", "mixer.decay_rank": 1, "finetune.kind": "lora", "finetune.alpha": 16.5,
        "position.kind": "learned", "n_layers": 3,
    }  # fmt: skip
    pair = Pair(replace(tiny("large gradients", values, "model"), checks=ONCE, optimized=False), "float64")
    assert sensitivity(pair, "update") > 1e-12
    del pair
    release()
