"""No component and no option without a cell."""

import dataclasses

import pytest

from parity import cells as module
from parity.cells import BASE, REGISTRIES, cells, components, select
from slm_core import presets
from slm_core.config_dict import field_table, flatten
from slm_core.errors import UserError
from slm_core.pattern import reads
from slm_core.validate import validate

CELLS = cells()
NOT_NUMERICS = {"memory.budget_gb"}
CHOICES = [
    (name, value)
    for name, info in field_table().items()
    if name.startswith(("model.", "optim.", "memory.")) and info.field.metadata["choices"]
    for value in info.field.metadata["choices"]
]


def test_names_are_unique():
    assert len({cell.name for cell in CELLS}) == len(CELLS)


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if "text" not in cell.config.data.source], ids=lambda c: c.name
)
def test_a_cell_is_a_valid_config(cell):
    validate(cell.config)


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_a_choice_has_a_quick_cell_that_reads_it(name, value):
    section, _, leaf = name.rpartition(".")

    def owner(config):
        for part in section.split("."):
            config = getattr(config, part)
        return config

    found = [
        c for c in CELLS if not c.slow and getattr(owner(c.config), leaf) == value and reads(owner(c.config), leaf)
    ]
    assert found


@pytest.mark.parametrize("name", [n for n in field_table() if n.startswith(("model.", "optim.", "memory."))])
def test_every_option_is_set_by_a_quick_cell(name):
    values = {flatten(cell.config)[name] for cell in CELLS if not cell.slow}
    assert name in NOT_NUMERICS or len(values) > 1 or len(field_table()[name].field.metadata["choices"] or ()) == 1


def test_every_preset_has_a_cell():
    names = {cell.name for cell in CELLS}
    for listed in presets.listing():
        for variant in listed.variants or [""]:
            spec = f"{listed.path}:{variant}" if variant else listed.path
            assert spec.removeprefix("configs/") in names


def test_a_new_component_gets_a_cell_by_itself(monkeypatch):
    metadata = field_table()["model.mlp.kind"].field.metadata
    choices = metadata["choices"] | {"reglu": "a new one"}
    fresh = dataclasses.field(default="swiglu", metadata=dict(metadata) | {"choices": choices})
    table = dict(field_table())
    table["model.mlp.kind"] = table["model.mlp.kind"]._replace(field=fresh)
    monkeypatch.setattr(module, "field_table", lambda: table)
    monkeypatch.setattr(module, "_tiny", lambda name, overrides: module.Cell(name, BASE))
    assert "mlp.kind=reglu" in [cell.name for cell in module._choice_cells(CELLS)]


def test_select_by_component():
    chosen = select(CELLS, "learned")
    assert "position.kind=learned" in {cell.name for cell in chosen} and "two layers" not in {
        cell.name for cell in chosen
    }
    assert all("learned" in components(cell.config) for cell in chosen)
    assert not any(cell.slow for cell in chosen) and any(cell.slow for cell in select(CELLS, "learned", slow=True))


def test_components_of_a_pattern_count():
    cell = next(cell for cell in CELLS if cell.name == "pattern")
    assert {"gelu", "swiglu", "rope", "none"} <= components(cell.config)


def test_an_unknown_component_names_the_nearest():
    with pytest.raises(UserError, match=r"--component=ropee .*did you mean rope\?"):
        select(CELLS, "ropee")


def test_registries_are_fields():
    assert set(REGISTRIES) <= set(field_table())
