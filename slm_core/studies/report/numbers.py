"""Formats numbers with the digits that a reader needs. A number that is missing or not finite is a dash."""

import math
from collections.abc import Callable
from typing import TypeGuard

from slm_core.planner.report import gigabytes
from slm_core.training.display.plain import duration

MISSING = "–"
MINUS = "\N{MINUS SIGN}"
SMALLEST = 0.5e-4
"""Losses below it round to 0.0000."""
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def known(value: float | None) -> TypeGuard[float]:
    """Says whether a number is there and finite."""
    return value is not None and math.isfinite(value)


def _or_missing(form: Callable[[float], str]) -> Callable[[float | None], str]:
    def formatted(value: float | None) -> str:
        return form(value).replace("-", MINUS) if known(value) else MISSING

    formatted.__doc__ = form.__doc__
    return formatted


@_or_missing
def nats(value: float) -> str:
    """Formats a loss as "1.4163"."""
    return f"{value:.4f}"


@_or_missing
def difference(value: float) -> str:
    """Formats a difference of losses with its sign: "+0.0121"."""
    return f"{value:+.4f}" if abs(value) >= SMALLEST else "0.0000"


@_or_missing
def rounding(value: float) -> str:
    """Formats what rounding does to a loss: "0.0021", or "3.1e-06" if four digits would show zeros."""
    return f"{value:.4f}" if abs(value) >= SMALLEST or value == 0 else f"{value:.1e}"


@_or_missing
def signed_rounding(value: float) -> str:
    """Formats as `rounding` does, with the sign."""
    return f"{value:+.4f}" if abs(value) >= SMALLEST else f"{value:+.1e}" if value else "0"


@_or_missing
def p_value(value: float) -> str:
    """Formats a p value as "0.031", or "<0.0001"."""
    return "<0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.095 else f"{value:.2f}"


@_or_missing
def count(value: float) -> str:
    """Formats 1038400 as "1.04M", and 96 as "96"."""
    return _scaled(value)


@_or_missing
def flops(value: float) -> str:
    """Formats 3.2e9 as "3.20 GFLOP"."""
    number = _scaled(value)
    digits = number.rstrip("EPTGMk")
    return f"{digits} {number[len(digits) :]}FLOP"


@_or_missing
def rate(value: float) -> str:
    """Formats 12345.6 as "12,300": three digits are what a timing holds."""
    return f"{float(f'{value:.3g}'):,.0f}"


@_or_missing
def memory(value: float) -> str:
    """Formats 1234567890 as "1.23 GB"; 0 was not measured."""
    return gigabytes(value) if value > 0 else MISSING


@_or_missing
def time(value: float) -> str:
    """Formats seconds as "1m40s"."""
    return duration(value)


def interval(low: float | None, high: float | None) -> str:
    """Formats an interval of differences as "+0.0093 to +0.0149"."""
    return f"{difference(low)} to {difference(high)}" if known(low) and known(high) else MISSING


def value(anything: object) -> str:
    """Formats a value of a config: 0.001 as "0.001", 1e-05 as "1e-05", "" as '""'."""
    if isinstance(anything, float):
        return f"{anything:.4g}"
    return str(anything) if anything != "" else '""'


def _scaled(value: float) -> str:
    """Writes three digits and a prefix of the SI. Small whole numbers stay as they are."""
    if abs(value) < 1000:
        return f"{value:.0f}" if value == int(value) else f"{value:.3g}"
    size = float(f"{value:.3g}")
    scale, prefix = next(entry for entry in _PREFIXES if abs(size) >= entry[0])
    scaled = size / scale
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f}{prefix}"
