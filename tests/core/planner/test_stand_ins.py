"""Kinds that the planner has no arithmetic for: of the catalogue none, and a new one is counted and named."""

import pytest

from slm_core.config import Config, presets
from slm_core.config.fields import field_table, with_values
from slm_core.planner import guesses, predict
from slm_core.planner.stand_ins import KNOWN, counted


@pytest.mark.parametrize("name", KNOWN)
def test_the_catalogue_is_counted(name):
    """A new component has no arithmetic at first; what it is counted as may be far off (docs/adding-a-component.md)."""
    kinds, stand_in = KNOWN[name]
    assert set(field_table()[name].option.choices) == set(kinds) and stand_in in kinds


def test_what_is_known_is_counted_as_it_is():
    config = presets.load("configs/gpt2.py:124m")[0]
    assert counted(config) == (config, {}) and guesses(config) == ""


@pytest.mark.parametrize("twin", ["torch", "flax"])
@pytest.mark.parametrize("name", KNOWN)
def test_a_new_kind_is_counted_as_its_stand_in(name, twin):
    kind = {"model.mlp.expert": {"model.mlp.kind": "moe"}}.get(name, {})
    as_stand_in = with_values(Config(), kind | {name: KNOWN[name][1]})
    assert predict(with_values(Config(), kind | {name: "new"}), 256, twin) == predict(as_stand_in, 256, twin)
    assert guesses(with_values(Config(), {name: "new"})) == f" ({name}=new counted as {KNOWN[name][1]})"


@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_a_new_kind_in_a_pattern_is_counted_too(twin):
    config = with_values(Config(), {"model.pattern": "2*norm.kind=new,attention.window=8 | ."})
    same = with_values(Config(), {"model.pattern": "2*norm.kind=layernorm,attention.window=8 | ."})
    assert counted(config) == (same, {"model.norm.kind=new": "layernorm"})
    assert predict(config, 256, twin) == predict(same, 256, twin)
