"""What the property tests of bad input share: how often they run per tier, and what counts as an answer."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from slm_core.cli.command_line import one_line
from slm_core.errors import UserError

MUCH = 500_000_000
"""Bytes that no input may make Python or NumPy allocate before it is refused."""


def tiers(default: int, slow: int, exhaustive: int) -> pytest.MarkDecorator:
    """Parametrizes a test with the number of its cases in each tier."""
    return pytest.mark.parametrize(
        "count",
        [
            default,
            pytest.param(slow, marks=pytest.mark.slow),
            pytest.param(exhaustive, marks=pytest.mark.exhaustive),
        ],
    )


def for_all(count: int, check: Callable[..., None], **strategies: Any) -> None:
    """Runs a check with `count` random arguments, the same ones every time."""
    chosen = settings(
        max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    chosen(given(**strategies)(check))()


def answer(call: Callable[[], Any]) -> str:
    """Returns "" if a call succeeds, or the one line of its UserError. Any other exception fails the test."""
    tracemalloc.start()
    try:
        call()
        said = ""
    except UserError as error:
        said = one_line(error)
        assert said and said.isprintable() and len(said) < 8000, repr(said)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MUCH, f"{peak / 1e6:.0f} MB"
    return said
