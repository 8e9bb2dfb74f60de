"""Kinds without arithmetic in the planner: the catalogue has none; a new kind is counted as another and named."""

import pytest

from parity.memory import planned
from slm_core.config import Config, presets
from slm_core.config.fields import field_table, with_values
from slm_core.model.initialization import SCALAR
from slm_core.planner import Twin, assumptions, predict
from slm_core.planner.fallbacks import KNOWN, with_fallbacks
from tests.gates import require

TWINS = pytest.mark.parametrize("framework", ["torch", "flax"])
NEW = 1000  # values of a parameter that only the new kinds have


def twin_with_new_kinds(framework: str) -> Twin:
    """Returns a twin whose new kinds have the parameters of their fallbacks and one more."""

    def declare(config, vocab_size):
        known, fallbacks = with_fallbacks(config)
        declared = planned(framework).declare(known, vocab_size)
        return {**declared, "layers.0.new": ((NEW,), SCALAR)} if fallbacks else declared

    return Twin(framework, declare, planned(framework).measure_mixer)


@pytest.mark.parametrize("name", KNOWN)
def test_the_catalogue_has_arithmetic(name):
    """A new component has none at first; its prediction may then be far off (docs/adding-a-component.md)."""
    kinds, fallback = KNOWN[name]
    choices = set(field_table()[name].option.choices)
    require({kind: f"arithmetic in slm_core/planner/ ({name})" for kind in choices - set(kinds)})
    assert set(kinds) <= choices and fallback in kinds


def test_known_kinds_are_counted_as_themselves():
    config = presets.load("configs/gpt2.py:124m")[0]
    assert with_fallbacks(config) == (config, {}) and assumptions(config) == ""


@TWINS
@pytest.mark.parametrize("name", [name for name in KNOWN if name.startswith("model.")])
def test_a_new_kind_is_counted_as_its_fallback_with_its_own_parameters(name, framework):
    kind = {"model.mlp.expert": {"model.mlp.kind": "moe"}}.get(name, {})
    new, fallback = (with_values(Config(), kind | {name: value}) for value in ("new", KNOWN[name][1]))
    twin = twin_with_new_kinds(framework)
    prediction, expected = predict(new, 256, twin), predict(fallback, 256, twin)
    assert prediction.weights == expected.weights + 4 * NEW
    assert prediction.optimizer == expected.optimizer + 8 * NEW
    assert prediction.gradients == expected.gradients + (4 * NEW if expected.gradients else 0)
    assert (prediction.activations, prediction.logits) == (expected.activations, expected.logits)
    assert assumptions(new) == f" ({name}=new counted as {KNOWN[name][1]})"


@TWINS
def test_a_new_optimizer_is_counted_as_adamw(framework):
    new, twin = with_values(Config(), {"optim.kind": "new"}), planned(framework)
    assert predict(new, 256, twin) == predict(Config(), 256, twin)
    assert assumptions(new) == " (optim.kind=new counted as adamw)"


@TWINS
def test_a_new_kind_in_a_pattern_is_counted_too(framework):
    config = with_values(Config(), {"model.pattern": "2*norm.kind=new,attention.window=8 | ."})
    same = with_values(Config(), {"model.pattern": "2*norm.kind=layernorm,attention.window=8 | ."})
    assert with_fallbacks(config) == (same, {"model.norm.kind=new": "layernorm"})
    twin = twin_with_new_kinds(framework)
    assert predict(config, 256, twin).activations == predict(same, 256, twin).activations
