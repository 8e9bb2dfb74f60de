"""Companion settings: what a kind's paper sets beside it."""

import math

import pytest

from slm_core.config import Config
from slm_core.config.fields import field_table, with_values
from slm_core.config.recommended import COMPANIONS, unset_companions
from slm_core.config.validation import drop_unread, validate


@pytest.mark.parametrize(("selector", "kind"), COMPANIONS)
def test_a_companion_makes_a_valid_config_and_asks_for_nothing_more(selector, kind):
    config, _ = drop_unread(Config(), with_values(Config(), {selector: kind}), {selector})
    ((name, values, source),) = unset_companions(config)
    assert name == f"{selector}={kind}" and "https://arxiv.org/abs/" in source
    complete = with_values(config, values)
    validate(complete, values)
    assert unset_companions(complete) == []


@pytest.mark.parametrize(("selector", "kind"), COMPANIONS)
def test_kinds_and_fields_are_the_schema_s(selector, kind):
    assert kind in field_table()[selector].option.choices
    assert COMPANIONS[selector, kind].values(Config()).keys() <= field_table().keys()


def test_what_the_user_set_stays_even_at_the_default():
    config = with_values(Config(), {"model.norm.kind": "dyt"})
    assert unset_companions(config, {"model.embed_scale"}) == []
    assert unset_companions(with_values(config, {"model.embed_scale": 2.0})) == []


def test_dynamic_tanh_scales_the_embedding_by_the_root_of_the_width():
    config = with_values(Config(), {"model.norm.kind": "dyt", "model.d_model": 64})
    assert unset_companions(config)[0][1] == {"model.embed_scale": pytest.approx(math.sqrt(64))}


def test_the_default_config_asks_for_nothing():
    assert unset_companions(Config()) == []
