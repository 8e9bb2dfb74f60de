"""Moves single values of a parametrized test to the slow tier."""

from collections.abc import Iterable
from typing import Any

import pytest


def some_slow(values: Iterable[Any], *slow: Any) -> list[Any]:
    """Returns the values for `pytest.mark.parametrize`, of which `slow` are marked slow."""
    assert set(slow) <= set(values), f"{slow} are not among {values}"
    return [pytest.param(value, marks=pytest.mark.slow) if value in slow else value for value in values]
