"""Every family is found by its file, and its examples can be read and written."""

import pkgutil

import pytest

from slm_core.hf import FAMILIES, FIRST, exporting, families
from slm_core.model.compare import differences
from tests.core.hf.family_checks import again, checked

EXAMPLES = [
    pytest.param(family.model_type, values, id=", ".join(filter(None, (family.model_type, options))))
    for family in FAMILIES.values()
    for options, values in family.examples.items()
]


def test_every_file_defines_a_family():
    files = {f"{families.__name__}.{file.name}" for file in pkgutil.iter_modules(families.__path__)}
    assert {family.write.__module__ for family in FAMILIES.values()} == files


def test_well_known_families_come_first():
    assert tuple(FAMILIES)[: len(FIRST)] == FIRST


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_an_example(family):
    assert FAMILIES[family].examples


@pytest.mark.parametrize(("family", "values"), EXAMPLES)
def test_an_example_that_is_written_reads_as_the_same_function(family, values):
    config = checked(family, dict(values))
    back = again(family, config)
    assert differences(config, back) == []
    assert differences(back, config) == []
    assert exporting.choose(config, family)[0].model_type == family
