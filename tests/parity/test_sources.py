"""The bisector shows where the code of a broken part is."""

import pytest

from parity.bisect.sources import CODE, code_of


@pytest.mark.parametrize("framework", ["torch", "flax"])
@pytest.mark.parametrize("part", CODE)
def test_a_part_that_is_not_a_module_has_its_code_in_both_twins(part, framework):
    assert f"slm_{framework}/" in code_of(part, framework, None)
