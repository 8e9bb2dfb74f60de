"""Every component and every option has a case."""

import dataclasses

import pytest

from parity import cases as module
from parity import fields
from parity.cases import AUTO, BASE, REGISTRIES, SECTIONS, cases, components, numerics, proven
from parity.fields import choices
from parity.options import FLOAT32_TOO, OPTIMIZED, QUICK
from parity.selection import FEW, FEW_LAYERS, select
from slm_core.config import presets
from slm_core.config.fields import field_table, flatten, reads, with_values
from slm_core.config.layers import layer_specs
from slm_core.config.pattern import parse
from slm_core.config.validation import validate
from slm_core.errors import UserError

CASES = cases()
NUMERICS = sorted(numerics())
CHOICES = [(name, value) for name in NUMERICS for value in choices(name) if value != AUTO]


def named(name):
    return next(case for case in CASES if case.name == name)


def test_names_are_unique_and_fit_the_table():
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(len(case.name) <= 32 for case in CASES)


@pytest.mark.parametrize(
    "case", [case for case in CASES if "text" not in case.config.data.source], ids=lambda c: c.name
)
def test_a_case_is_a_valid_config(case):
    validate(case.config)


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_a_choice_has_a_small_case_that_reads_it(name, value):
    *section, leaf = name.split(".")

    def owners(config):
        for model in (config.model, *layer_specs(config.model)):
            owner = with_values(config, {"model": model})
            for part in section:
                owner = getattr(owner, part)
            yield owner

    def has(case):
        return any(getattr(owner, leaf) == value and reads(owner, leaf) for owner in owners(case.config))

    assert any(has(case) for case in CASES if not case.large and (case.quick or name not in REGISTRIES))


@pytest.mark.parametrize("name", NUMERICS)
def test_every_option_is_set_and_read_in_a_small_case(name):
    choices = field_table()[name].option.choices
    assert len(choices) == 1 or any(name in proven(case) for case in CASES if not case.large)


def test_a_new_number_gets_its_own_case():
    without = [case for case in CASES if "model.norm.alpha" not in proven(case)]
    (case,) = module._number_cases([*without, named("norm.kind=dyt")])
    assert case.name == "alpha=0.25" and case.config.model.norm.kind == "dyt" and "dyt" in case.about


def test_every_preset_has_a_case():
    """The presets of tasks need none: numbers apart, and what a small pattern sets, their models are the default's."""
    names, default = {case.name for case in CASES}, presets.load(presets.DEFAULT)[0]
    in_small_pattern = {
        name for entry in parse(named("pattern, windows").config.model.pattern) for name in entry.values
    }
    for listed in presets.listing():
        for variant in listed.variants or [""]:
            spec = f"{listed.path}:{variant}" if variant else listed.path
            config = presets.load(spec)[0]
            differing = {name for name, value in flatten(config).items() if value != flatten(default)[name]}
            numbers = {"model.d_model", "model.n_layers", "model.attention.n_heads", "optim.lr", "optim.warmup_steps"}
            numbers |= {"model.init_std", "model.pattern", "run.threads"}
            only_numbers = all(name.startswith(("data.", "train.")) or name in numbers for name in differing)
            only_numbers &= all(entry.values.keys() <= in_small_pattern for entry in parse(config.model.pattern))
            assert spec.removeprefix("configs/") in names or (config.data.source == "task" and only_numbers), spec


def test_the_quick_cases_are_few_and_small():
    quick = [case for case in CASES if case.quick]
    assert sum(len(case.quick) for case in quick) <= 70 and not any(case.large for case in quick)
    assert {case.name for case in CASES} >= QUICK | FLOAT32_TOO | OPTIMIZED and FLOAT32_TOO <= QUICK
    assert len([case for case in CASES if not case.large]) <= 160


def test_a_new_component_gets_its_own_case(monkeypatch):
    table = dict(field_table())
    option = table["model.mlp.kind"].option
    fresh = dataclasses.replace(option, choices={**option.choices, "reglu": "a new one"})
    table["model.mlp.kind"] = table["model.mlp.kind"]._replace(option=fresh)
    for reader in (module, fields):
        monkeypatch.setattr(reader, "field_table", lambda: table)
    monkeypatch.setattr(module, "tiny", lambda name, overrides, section: module.Case(name, BASE, section))
    (case,) = (case for case in module._choice_cases(CASES, REGISTRIES) if case.name == "mlp.kind=reglu")
    assert case.quick and case.section == "MLPs"


@pytest.mark.parametrize("name", sorted({value for name in REGISTRIES for value in choices(name)}))
def test_a_component_is_proven_by_a_few_small_cases(name):
    chosen = select(CASES, name)
    assert 1 <= len(chosen) <= FEW and all(name in components(case.config) for case in chosen)
    assert not any(case.large for case in chosen)
    assert chosen[0].name == "base" if name in components(BASE) else chosen[0].name.endswith(f"={name}")
    everything = select(CASES, name, everything=True)
    assert all(name in case.about and case in everything for case in chosen)


def test_a_component_is_proven_by_cases_about_it_and_not_by_those_that_happen_to_use_it():
    names = {case.name for case in select(CASES, "rope")}
    assert {"base", "rope, part", "rope, linear"} <= names and "two layers" not in names
    assert {"attention.kind=mla", "mla, ranks, window, sinks, cap"} <= {case.name for case in select(CASES, "mla")}
    assert "flash, long" not in {case.name for case in select(CASES, "gqa", everything=True)}
    presets_too = {case.name for case in select(CASES, "learned", everything=True)}
    assert "gpt2.py:124m" in presets_too and "gpt2.py:tiny" not in {case.name for case in select(CASES, "learned")}


@pytest.mark.parametrize("choice", ["yarn", "scaling=yarn", "sandwich", "weight=one_plus", "qk_norm=rmsnorm", "l2"])
def test_a_choice_can_be_proven_alone(choice):
    assert 1 <= len(select(CASES, choice)) <= FEW


def test_whatever_a_case_is_about_can_be_proven_alone():
    """By cases of few layers: XLA compiles them one by one. A case that is the only one may have more."""
    for name in {name for case in CASES for name in case.about}:
        chosen = select(CASES, name)
        assert len(chosen) == 1 or sum(case.config.model.n_layers for case in chosen) <= FEW_LAYERS, name


def test_everything_selects_every_case():
    assert select(CASES, everything=True) == CASES and select(CASES) == [case for case in CASES if case.quick]


def test_components_of_a_pattern_count():
    case = named("pattern, windows")
    assert {"gelu", "swiglu", "rope", "none"} <= components(case.config)
    assert {"gelu", "none"} <= case.about


def test_an_unknown_component_names_the_nearest():
    with pytest.raises(UserError, match=r"--component=ropee .*did you mean rope\?"):
        select(CASES, "ropee")


def test_registries_and_sections_are_fields():
    assert set(REGISTRIES) <= set(field_table())
    assert all(any(name.startswith(beginning) for name in field_table()) for beginning in SECTIONS)
