"""Formulas beside outside sources. Twins can be equal and both wrong; others wrote what these are compared with."""

import jax
import pytest

from slm_core.config.fields import field_table
from tests.gates import require
from tests.outside.families import kinds, kinds_of_families
from tests.outside.table import FORMULAS, NOTHING, WITHOUT


@pytest.fixture(autouse=True)
def float64():
    """optax computes as JAX does."""
    jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("formula", [f for f in FORMULAS if not f.shared], ids=lambda f: f.about)
def test_a_formula_of_the_twins_is_that_of_its_source(twin, formula, record_property):
    difference = formula.difference(twin)
    record_property("formula", [formula.about, twin.NAME, difference])
    assert difference <= formula.tolerance


@pytest.mark.parametrize("formula", [f for f in FORMULAS if f.shared], ids=lambda f: f.about)
def test_a_formula_of_both_twins_is_that_of_its_source(formula, record_property):
    difference = formula.difference(None)
    record_property("formula", [formula.about, "both", difference])
    assert difference <= formula.tolerance


def test_a_tolerance_above_rounding_has_a_reason():
    assert all((formula.tolerance <= 1e-11) == (not formula.why) for formula in FORMULAS)


def test_every_kind_has_an_outside_source_or_is_named_as_one_without():
    compared = {formula.about.partition(",")[0] for formula in FORMULAS}
    known = compared | kinds_of_families().keys() | WITHOUT.keys() | NOTHING.keys()
    lacking = "an outside source: a line in tests/outside, or a reason in WITHOUT of tests/outside/table.py"
    require({kind.rpartition(".")[2]: f"({kind}) {lacking}" for kind in kinds() - known})


def test_what_is_named_as_without_a_source_is_in_the_schema():
    names = kinds() | {name.removeprefix("model.") for name in field_table()}
    assert (WITHOUT.keys() | NOTHING.keys()) <= names
