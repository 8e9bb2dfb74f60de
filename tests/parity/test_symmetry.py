"""The twins mirror each other: files, classes, registries, parameters."""

import inspect
import re
from pathlib import Path

import pytest

import slm_flax.layers
import slm_flax.optim
import slm_torch.layers
import slm_torch.optim
from parity.cells import cells
from slm_core.config.fields import field_table
from slm_core.training.schedules import SCHEDULES

ROOT = Path(__file__).parents[2]
FIELDS = {
    "ATTENTION": "model.attention.kind",
    "KERNEL": "model.attention.kernel",
    "POSITION": "model.position.kind",
    "NORM": "model.norm.kind",
    "MLP": "model.mlp.kind",
}


def modules(package: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT / package)) for path in (ROOT / package).rglob("*.py"))


def public(module) -> dict[str, type]:
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name: type(value) for name, value in own.items() if not name.startswith("_")}


def load(package: str, path: str):
    import importlib

    return importlib.import_module(f"{package}.{path.removesuffix('.py').replace('/', '.')}")


FLAX_ONLY = {"stack.py"}
"""XLA saves memory in loops alone: layers that repeat are held as one there. PyTorch needs nothing of the kind."""


def test_the_same_files():
    assert set(modules("slm_torch")) == set(modules("slm_flax")) - FLAX_ONLY


@pytest.mark.parametrize("path", [path for path in modules("slm_torch") if "__init__" not in path])
def test_the_same_public_classes(path):
    ours = [{n for n, kind in public(load(package, path)).items() if kind is type or issubclass(kind, type)}
            for package in ("slm_torch", "slm_flax")]  # fmt: skip
    assert ours[0] == ours[1]


ONE_TWIN_ONLY = {"trim", "one_minus_power"}
"""What one framework needs and the other does not: cutting padding off a cache, a power that float32 would lose."""


@pytest.mark.parametrize("folder", ["layers", "optim"])
def test_the_same_names_in_the_same_order(folder):
    differing = {}
    for path in modules(f"slm_torch/{folder}"):
        names = [
            [name for name in public(load(f"{package}.{folder}", path)) if name not in ONE_TWIN_ONLY]
            for package in ("slm_torch", "slm_flax")
        ]
        if names[0] != names[1]:
            differing[path] = names
    assert not differing


def test_the_same_registries_in_the_same_order():
    for name in FIELDS:
        a, b = getattr(slm_torch.layers, name), getattr(slm_flax.layers, name)
        assert list(a) == list(b)
        assert [entry.__name__ for entry in a.values()] == [entry.__name__ for entry in b.values()]


@pytest.mark.parametrize(("registry", "field"), FIELDS.items())
def test_a_registry_holds_the_choices_of_its_field(registry, field):
    assert set(getattr(slm_torch.layers, registry)) == set(field_table()[field].option.choices)


def test_optimizers_and_schedules_are_the_choices_of_their_fields():
    kinds = set(field_table()["optim.kind"].option.choices)
    assert (
        list(slm_torch.optim.OPTIMIZERS) == list(slm_flax.optim.OPTIMIZERS) and set(slm_torch.optim.OPTIMIZERS) == kinds
    )
    assert [c.__name__ for c in slm_torch.optim.OPTIMIZERS.values()] == [
        c.__name__ for c in slm_flax.optim.OPTIMIZERS.values()
    ]
    assert set(SCHEDULES) == set(field_table()["optim.schedule"].option.choices)


OURS = {"dropout", "dense", "fused", "linear", "none", "placement"}
"""Layers that are no paper's: they say what they are."""


@pytest.mark.parametrize("path", [path for path in modules("slm_torch/layers") if "__init__" not in path])
def test_a_layer_opens_with_its_paper(path):
    for package in ("slm_torch", "slm_flax"):
        doc = inspect.getdoc(load(f"{package}.layers", path)) or ""
        assert doc and (path.removesuffix(".py") in OURS or re.search(r"(19|20)\d\d|https?://", doc)), path


@pytest.mark.parametrize("path", [path for path in modules("slm_torch/optim") if "__init__" not in path])
def test_an_optimizer_opens_with_its_paper(path):
    for package in ("slm_torch", "slm_flax"):
        doc = inspect.getdoc(load(f"{package}.optim", path)) or ""
        assert doc and (path == "base.py" or re.search(r"(19|20)\d\d.*https?://", doc, re.S)), path


@pytest.mark.parametrize("cell", [cell for cell in cells() if not cell.large], ids=lambda cell: cell.name)
def test_the_same_parameters_with_the_same_shapes_and_roles(cell):
    import slm_flax.model
    import slm_flax.numerics
    import slm_flax.params
    import slm_torch.model
    import slm_torch.numerics
    import slm_torch.params

    twins = [
        twin.params.specs(twin.model.Transformer(cell.config, cell.vocab_size, twin.numerics.DTYPES["float32"]))
        for twin in (slm_torch, slm_flax)
    ]
    assert twins[0] == twins[1]
