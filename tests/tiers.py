"""Moves single values of a parametrized test to the slow or the exhaustive tier."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def some_slow(values: Iterable[Any], *slow: Any, exhaustive: Collection[Any] = ()) -> list[Any]:
    """Returns the values for `pytest.mark.parametrize`, of which `slow` and `exhaustive` carry that mark."""
    assert {*slow, *exhaustive} <= set(values), f"{slow} and {exhaustive} are not among {values}"
    marks = dict.fromkeys(slow, pytest.mark.slow) | dict.fromkeys(exhaustive, pytest.mark.exhaustive)
    return [pytest.param(value, marks=marks[value]) if value in marks else value for value in values]
