"""The twins mirror each other: files, classes, registries, parameters."""

import inspect
import re
from pathlib import Path

import pytest

import slm_flax.layers
import slm_flax.optim
import slm_torch.layers
import slm_torch.optim
from parity.cases import cases
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
    home = module.__name__
    defined = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == home}
    return {name: type(value) for name, value in defined.items() if not name.startswith("_")}


def load(package: str, path: str):
    import importlib

    return importlib.import_module(f"{package}.{path.removesuffix('.py').replace('/', '.')}")


FLAX_ONLY = {"stack.py", "orbax_export.py", "card.py"}
"""XLA saves memory in loops only, so the Flax twin stacks layers that repeat. Orbax is a format of JAX programs.
XLA can compile for a card that is not there."""

TORCH_ONLY = {"flops.py", "bin_files.py"}
"""PyTorch counts operations, once for both twins, which are the same function. It also reads its own .bin files."""


def test_the_same_files():
    assert set(modules("slm_torch")) - TORCH_ONLY == set(modules("slm_flax")) - FLAX_ONLY


@pytest.mark.parametrize("path", sorted({path for path in modules("slm_torch") if "__init__" not in path} - TORCH_ONLY))
def test_the_same_public_classes(path):
    classes = [{n for n, kind in public(load(package, path)).items() if kind is type or issubclass(kind, type)}
            for package in ("slm_torch", "slm_flax")]  # fmt: skip
    if path.startswith("optim/"):  # optax's are functions
        assert classes[1] <= OPTAX_ONLY
    else:
        assert classes[0] == classes[1]


OPTAX_ONLY = {"Optimizer", "Factored", "Averaging", "Moments", "Momentum"}
"""States of optax's transformations, which are tuples, and what gives them canonical names."""

ONE_TWIN_ONLY = {"trim"}
"""Functions that one framework needs and the other does not: they cut padding off a cache."""


@pytest.mark.parametrize("folder", ["layers"])
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
    registries = [[kind for kind in twin.optim.OPTIMIZERS if ":" not in kind] for twin in (slm_torch, slm_flax)]
    assert registries[0] == registries[1] and set(registries[0]) == kinds
    for kind in kinds:  # PyTorch's are classes, optax's functions
        assert slm_torch.optim.OPTIMIZERS[kind].__name__.lower() == kind.replace("_", "")
        assert slm_flax.optim.OPTIMIZERS[kind].__name__ == kind
    assert set(SCHEDULES) == set(field_table()["optim.schedule"].option.choices)


OURS = {"dense", "fused", "linear", "recurrent"}
"""Layers without a paper: they say what they are."""


@pytest.mark.parametrize("path", [path for path in modules("slm_torch/layers") if "__init__" not in path])
def test_a_layer_names_its_paper_where_help_shows_it(path):
    for package in ("slm_torch", "slm_flax"):
        module = load(f"{package}.layers", path)
        docs = [inspect.getdoc(getattr(module, name)) for name in public(module)]
        assert module.__doc__ and all(docs), path
        assert path.removesuffix(".py") in OURS or any(re.search(r"(19|20)\d\d|https?://", doc) for doc in docs), path


@pytest.mark.parametrize("twin", [slm_torch, slm_flax])
@pytest.mark.parametrize("kind", slm_torch.optim.OPTIMIZERS)
def test_an_optimizer_shows_its_paper(kind, twin):
    assert re.search(r"(19|20)\d\d,\s+https?://", inspect.getdoc(twin.optim.OPTIMIZERS[kind]) or "", re.S)


@pytest.mark.parametrize("case", [case for case in cases() if not case.large], ids=lambda case: case.name)
def test_the_same_parameters_with_the_same_shapes_and_roles(case):
    import slm_flax.model
    import slm_flax.numerics
    import slm_flax.params
    import slm_torch.model
    import slm_torch.numerics
    import slm_torch.params

    twins = [
        twin.params.specs(twin.model.Transformer(case.config, case.vocab_size, twin.numerics.DTYPES["float32"]))
        for twin in (slm_torch, slm_flax)
    ]
    assert twins[0] == twins[1]
