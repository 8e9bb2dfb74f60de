"""No component and no option without a cell."""

import dataclasses

import pytest

from parity import cells as module
from parity import fields
from parity.cells import AUTO, BASE, FEW, REGISTRIES, SECTIONS, cells, components, numerics, proven, select
from parity.fields import choices
from parity.options import FLOAT32_TOO, OPTIMIZED, QUICK
from slm_core.config import presets
from slm_core.config.fields import field_table, reads, with_values
from slm_core.config.layers import layer_specs
from slm_core.config.validation import validate
from slm_core.errors import UserError

CELLS = cells()
NUMERICS = sorted(numerics())
CHOICES = [(name, value) for name in NUMERICS for value in choices(name) if value != AUTO]


def named(name):
    return next(cell for cell in CELLS if cell.name == name)


def test_names_are_unique_and_fit_the_table():
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert all(len(cell.name) <= 32 for cell in CELLS)


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if "text" not in cell.config.data.source], ids=lambda c: c.name
)
def test_a_cell_is_a_valid_config(cell):
    validate(cell.config)


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_a_choice_has_a_small_cell_that_reads_it(name, value):
    *section, leaf = name.split(".")

    def owners(config):
        for model in (config.model, *layer_specs(config.model)):
            owner = with_values(config, {"model": model})
            for part in section:
                owner = getattr(owner, part)
            yield owner

    def has(cell):
        return any(getattr(owner, leaf) == value and reads(owner, leaf) for owner in owners(cell.config))

    assert any(has(cell) for cell in CELLS if not cell.large and (cell.quick or name not in REGISTRIES))


@pytest.mark.parametrize("name", NUMERICS)
def test_every_option_is_set_and_read_in_a_small_cell(name):
    choices = field_table()[name].option.choices
    assert len(choices) == 1 or any(name in proven(cell) for cell in CELLS if not cell.large)


def test_a_new_number_gets_a_cell_by_itself():
    without = [cell for cell in CELLS if "model.norm.alpha" not in proven(cell)]
    (cell,) = module._number_cells([*without, named("norm.kind=dyt")])
    assert cell.name == "alpha=0.25" and cell.config.model.norm.kind == "dyt" and "dyt" in cell.about


def test_every_preset_has_a_cell():
    names = {cell.name for cell in CELLS}
    for listed in presets.listing():
        for variant in listed.variants or [""]:
            spec = f"{listed.path}:{variant}" if variant else listed.path
            assert spec.removeprefix("configs/") in names


def test_the_quick_cells_are_few_and_small():
    quick = [cell for cell in CELLS if cell.quick]
    assert sum(len(cell.quick) for cell in quick) <= 70 and not any(cell.large for cell in quick)
    assert {cell.name for cell in CELLS} >= QUICK | FLOAT32_TOO | OPTIMIZED and FLOAT32_TOO <= QUICK
    assert len([cell for cell in CELLS if not cell.large]) <= 135


def test_a_new_component_gets_a_cell_by_itself(monkeypatch):
    table = dict(field_table())
    option = table["model.mlp.kind"].option
    fresh = dataclasses.replace(option, choices={**option.choices, "reglu": "a new one"})
    table["model.mlp.kind"] = table["model.mlp.kind"]._replace(option=fresh)
    for reader in (module, fields):
        monkeypatch.setattr(reader, "field_table", lambda: table)
    monkeypatch.setattr(module, "_tiny", lambda name, overrides, section: module.Cell(name, BASE, section))
    (cell,) = (cell for cell in module._choice_cells(CELLS, REGISTRIES) if cell.name == "mlp.kind=reglu")
    assert cell.quick and cell.section == "MLPs"


@pytest.mark.parametrize("name", sorted({value for name in REGISTRIES for value in choices(name)}))
def test_a_component_is_proven_by_a_few_small_cells(name):
    chosen = select(CELLS, name)
    assert 1 <= len(chosen) <= FEW and all(name in components(cell.config) for cell in chosen)
    assert not any(cell.large for cell in chosen)
    assert chosen[0].name == "base" if name in components(BASE) else chosen[0].name.endswith(f"={name}")
    everything = select(CELLS, name, everything=True)
    assert all(name in cell.about and cell in everything for cell in chosen)


def test_a_component_is_proven_by_cells_about_it_and_not_by_those_that_happen_to_use_it():
    names = {cell.name for cell in select(CELLS, "rope")}
    assert {"base", "rope, part", "rope, linear"} <= names and "two layers" not in names
    assert {"attention.kind=mla", "mla, ranks, window, sinks, cap"} <= {cell.name for cell in select(CELLS, "mla")}
    assert "flash, long" not in {cell.name for cell in select(CELLS, "gqa", everything=True)}
    presets_too = {cell.name for cell in select(CELLS, "learned", everything=True)}
    assert "gpt2.py:124m" in presets_too and "gpt2.py:tiny" not in {cell.name for cell in select(CELLS, "learned")}


@pytest.mark.parametrize("choice", ["yarn", "scaling=yarn", "sandwich", "weight=one_plus", "qk_norm=rmsnorm", "l2"])
def test_a_choice_can_be_proven_alone(choice):
    assert 1 <= len(select(CELLS, choice)) <= FEW


def test_everything_is_everything():
    assert select(CELLS, everything=True) == CELLS and select(CELLS) == [cell for cell in CELLS if cell.quick]


def test_components_of_a_pattern_count():
    cell = named("pattern, windows")
    assert {"gelu", "swiglu", "rope", "none"} <= components(cell.config)
    assert {"gelu", "none"} <= cell.about


def test_an_unknown_component_names_the_nearest():
    with pytest.raises(UserError, match=r"--component=ropee .*did you mean rope\?"):
        select(CELLS, "ropee")


def test_registries_and_sections_are_fields():
    assert set(REGISTRIES) <= set(field_table())
    assert all(any(name.startswith(beginning) for name in field_table()) for beginning in SECTIONS)
