"""Every mutant of what both twins share is caught by a test of its file, or known to change nothing."""

from collections import Counter

import pytest

from tests.core.mutants import EQUIVALENT, TESTS
from tests.generated_mutants import account, expected, survey


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TESTS)
def test_a_mutant_that_is_not_caught_changes_nothing(name, record_property):
    told, reasons = survey("tests.core.mutants", name), EQUIVALENT.get(name, {})
    record_property("mutants", account(f"slm_core.{name}", told, reasons))
    assert told["made"] > 0 and Counter(told["left"]) == expected(reasons)
