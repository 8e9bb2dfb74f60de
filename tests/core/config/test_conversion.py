"""The schema and its round trips."""

import dataclasses
import typing

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import config_dict, config_flags

from slm_core.config import Attention, Config, Mlp, Model, Optim
from slm_core.config.conversion import from_config_dict, to_config_dict
from slm_core.config.fields import (
    base_type,
    field_table,
    fields,
    flatten,
    is_optional,
    sections,
    type_name,
    with_values,
)
from slm_core.config.values import convert, parse_value
from slm_core.errors import UserError

_VALUES = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63),
    float: st.floats(allow_nan=False),
    str: st.text(),
    tuple: st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
}


def _values(annotation):
    values = _VALUES[base_type(annotation)]
    return st.none() | values if is_optional(annotation) else values


configs = st.fixed_dictionaries({}, optional={info.name: _values(info.type) for info in fields()}).map(
    lambda values: with_values(Config(), values)
)


@settings(max_examples=50, deadline=None)
@given(configs)
def test_round_trip_keeps_every_value(config):
    assert from_config_dict(to_config_dict(config)) == config
    assert with_values(Config(), flatten(config)) == config


def test_round_trip_of_json_lists_and_whole_numbers():
    config = from_config_dict({"optim": {"betas": [0, 0.5], "lr": 1}})
    assert config.optim == Optim(betas=(0.0, 0.5), lr=1.0)
    assert isinstance(config.optim.lr, float) and isinstance(config.optim.betas[0], float)


def test_every_field_is_documented_and_its_default_fits():
    names = [info.name for info in fields()]
    assert len(names) == len(set(names))
    for name, annotation, default, option in fields():
        assert option.doc, name
        assert convert(name, default, annotation) == default
        assert not option.choices or default in option.choices, name


def test_every_section_says_what_it_is():
    names = [field.name for section in sections() for field in section.fields]
    assert sorted(names) == sorted(field_table())
    for section in sections():
        assert section.doc.endswith(".") and "(" not in section.doc, section.name


def test_read_by_names_selectors_and_values_that_exist():
    for name, _, _, option in fields():
        for selector, kinds in option.read_by.items():
            owner = field_table()[f"{name.rpartition('.')[0]}.{selector}"]
            assert set(kinds) <= set(owner.option.choices), name


def test_choices_of_the_whole_model_are_choices():
    assert any(info.option.whole_model for info in fields())
    assert all(set(info.option.whole_model) < set(info.option.choices) for info in fields() if info.option.whole_model)


def test_config_dict_is_locked_and_holds_typed_placeholders():
    values = to_config_dict(Config(model=Model(attention=Attention(n_kv_heads=2))))
    assert values.is_locked
    assert isinstance(values.optim.betas, tuple)
    assert values.model.mlp.hidden is None and values.model.mlp.get_type("hidden") is int
    assert values.model.attention.n_kv_heads == 2 and values.model.attention.get_type("n_kv_heads") is int
    values.model.mlp.hidden = 96
    values.model.attention.n_kv_heads = None
    config = from_config_dict(values)
    assert config.model.mlp == Mlp(hidden=96) and config.model.attention == Attention()


def test_config_flags_of_the_library_take_the_config_dict():
    argv = ["", "--config.model.attention.n_kv_heads=2", "--config.optim.betas=(0.5,0.75)", "--config.run.compile=true"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", to_config_dict(Config()), flag_values=values, sys_argv=argv)
    values(argv)
    config = from_config_dict(values["config"].value)
    assert (config.model.attention.n_kv_heads, config.optim.betas, config.run.compile) == (2, (0.5, 0.75), True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "modle is not a field"),
        ({"model": {"d_modl": 8}}, "did you mean model.d_model?"),
        ({"lr": 0.1}, "did you mean optim.lr?"),
        ({"model": {"attention": {"n_kv_head": 1}}}, "did you mean model.attention.n_kv_heads?"),
        ({"model": 3}, "model is a section"),
        ({"train": {"steps": "abc"}}, "train.steps='abc' is of the wrong type: give a whole number"),
        ({"train": {"steps": 1.5}}, "train.steps=1.5"),
        ({"train": {"steps": True}}, "train.steps=True"),
        ({"train": {"steps": None}}, "train.steps=None"),
        ({"run": {"resume": 1}}, "run.resume=1 is of the wrong type: give true or false"),
        ({"run": {"name": 1}}, "run.name=1"),
        ({"optim": {"betas": (0.9,)}}, "2 numbers"),
        ({"optim": {"betas": (0.9, "x")}}, "2 numbers"),
        ({"optim": {"betas": 0.9}}, "2 numbers"),
        ({"model": {"mlp": {"hidden": "x"}}}, "a whole number or none"),
    ],
)
@pytest.mark.parametrize("wrap", [dict, config_dict.ConfigDict])
def test_a_wrong_name_or_type_is_one_line(values, message, wrap):
    with pytest.raises(UserError) as caught:
        from_config_dict(wrap(values))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_types_as_help_shows_them():
    hints = {info.name: type_name(info.type) for info in fields()}
    assert hints["optim.betas"] == "float,float"
    assert hints["model.mlp.hidden"] == "int|none"
    assert hints["seed"] == "int"


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("1e-3", float, 0.001), ("3", float, 3.0), ("3", int, 3), ("true", bool, True), ("0", bool, False),
        ("none", int | None, None), ("7", int | None, 7), ("none", str, "none"),
    ],
)  # fmt: skip
def test_parse_value(text, annotation, value):
    parsed = parse_value("x", text, annotation)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(("text", "annotation"), [("1.5", int), ("", int), ("yes", bool), ("x", float), ("none", int)])
def test_parse_value_names_field_and_text(text, annotation):
    with pytest.raises(UserError, match=f"^x={text} is of the wrong type"):
        parse_value("x", text, annotation)


def test_sections_are_frozen():
    hints = typing.get_type_hints(Config)
    assert all(t.__dataclass_params__.frozen for t in hints.values() if dataclasses.is_dataclass(t))
