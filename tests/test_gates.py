"""The gates fail for what a component lacks, and only name it for an experimental one."""

import dataclasses

import pytest

from slm_core.config.fields import field_table
from tests import gates


@pytest.fixture
def dyt_is_experimental(monkeypatch):
    table = dict(field_table())
    info = table["model.norm.kind"]
    table["model.norm.kind"] = info._replace(option=dataclasses.replace(info.option, experimental=("dyt",)))
    monkeypatch.setattr(gates, "field_table", lambda: table)
    return table


def test_an_experimental_choice_is_a_choice():
    for name, info in field_table().items():
        assert set(info.option.experimental) <= set(info.option.choices), name


def test_what_is_missing_fails(dyt_is_experimental):
    with pytest.raises(pytest.fail.Exception, match="^rmsnorm lacks a fault$"):
        gates.require({"rmsnorm": "a fault"})
    gates.require({})


def test_what_an_experimental_component_lacks_is_named(dyt_is_experimental):
    with pytest.warns(UserWarning, match="^dyt is experimental, and still lacks a fault$"):
        gates.require({"dyt": "a fault"})
    with pytest.warns(UserWarning, match="^norm.alpha is experimental"):
        gates.require({"norm.alpha": "a fault"})
    with pytest.warns(UserWarning), pytest.raises(pytest.fail.Exception, match="^norm.eps lacks a fault$"):
        gates.require({"kind=dyt": "a fault", "norm.eps": "a fault"})


def test_help_says_what_is_experimental(dyt_is_experimental):
    meanings = dyt_is_experimental["model.norm.kind"].option.meanings()
    assert [kind for kind, meaning in meanings.items() if meaning.endswith(" (experimental)")] == ["dyt"]
