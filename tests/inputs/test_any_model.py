"""Any valid model is the same function in both twins: random mixtures of components and options."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from parity.cases import ONE_PASS, REGISTRIES, tiny
from parity.fields import choices, other_values, selecting
from parity.options import BASE
from parity.suite import run_case
from slm_core.config.fields import base_type, field_table, flatten
from slm_core.config.pattern import layer_fields
from slm_core.errors import UserError
from tests.inputs.answers import for_all

FIELDS = [
    name
    for name in field_table()
    if name.startswith("model.") and name != "model.pattern" and other_values(name, flatten(BASE)[name])
]
PER_LAYER = [name for name in layer_fields() if f"model.{name}" in FIELDS]


def settings(name: str) -> st.SearchStrategy[dict]:
    """Returns overrides that set a field, and what makes it read."""
    values = choices(name) or other_values(name, flatten(BASE)[name])
    return st.sampled_from(values).map(lambda value: selecting(name, BASE) | {name: value})


def pattern() -> st.SearchStrategy[str]:
    """Returns a pattern of two entries, of which one sets a field of a layer."""

    def entry(name: str) -> st.SearchStrategy[str]:
        kind = base_type(layer_fields()[name].type)
        values = st.sampled_from(other_values(f"model.{name}", flatten(BASE)[f"model.{name}"]))
        return values.map(lambda value: f"{name}={str(value).lower() if kind is bool else value} | .")

    return st.one_of(st.just(""), st.just(""), st.sampled_from(PER_LAYER).flatmap(entry))


def models() -> st.SearchStrategy[dict]:
    """Returns overrides of BASE, most of them valid together."""
    kinds = st.sampled_from([name for name in REGISTRIES if name.startswith("model.")]).flatmap(settings)
    options = st.sampled_from(FIELDS).flatmap(settings)
    parts = st.lists(st.one_of(kinds, options), min_size=2, max_size=5)
    merged = parts.map(lambda each: {name: value for part in each for name, value in part.items()})
    layers = st.sampled_from([1, 2, 3])
    return st.builds(lambda a, p, n: a | {"model.pattern": p, "model.n_layers": n}, merged, pattern(), layers)


@pytest.mark.parametrize(
    "count",
    [pytest.param(12, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.exhaustive)],
)
def test_the_twins_agree_on_any_valid_model(count):
    """The first three checks of the proof: initial weights, logits, gradients."""
    refused, proven = [], []

    def check(overrides):
        if len(proven) == count:
            return
        try:
            case = tiny("random", overrides, "model")
        except UserError as error:
            refused.append(str(error))
            return
        results = list(run_case(replace(case, checks=ONE_PASS, optimized=False), "float64"))
        assert not [str(result) for result in results if not result.passed], overrides
        proven.append(len(results))

    for_all(6 * count, check, overrides=models())
    assert len(proven) == count and set(proven) == {3}, f"{len(proven)} proven, {len(refused)} refused"
