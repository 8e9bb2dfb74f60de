"""Numbers as a report shows them."""

import math

import pytest

from slm_core.studies.report import numbers


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (numbers.nats, 1.41634, "1.4163"),
        (numbers.difference, 0.01214, "+0.0121"),
        (numbers.difference, -0.01214, "−0.0121"),
        (numbers.difference, -0.00001, "0.0000"),
        (numbers.rounding, 0.0074, "0.0074"),
        (numbers.rounding, 3.14e-6, "3.1e−06"),
        (numbers.signed_rounding, -0.0021, "−0.0021"),
        (numbers.signed_rounding, 2.2e-7, "+2.2e−07"),
        (numbers.signed_rounding, 0.0, "0"),
        (numbers.p_value, 0.00001, "<0.0001"),
        (numbers.p_value, 0.0312, "0.031"),
        (numbers.p_value, 0.317, "0.32"),
        (numbers.p_value, 1.0, "1.00"),
        (numbers.count, 96, "96"),
        (numbers.count, 1_038_400, "1.04M"),
        (numbers.count, 614_400, "614k"),
        (numbers.count, 12_345, "12.3k"),
        (numbers.count, 999_950, "1.00M"),
        (numbers.count, 124e6, "124M"),
        (numbers.flops, 3.2e9, "3.20 GFLOP"),
        (numbers.flops, 1.92e12, "1.92 TFLOP"),
        (numbers.flops, 4.1e17, "410 PFLOP"),
        (numbers.rate, 24_312.4, "24,300"),
        (numbers.memory, 1.234e9, "1.23 GB"),
        (numbers.memory, 0, "–"),
        (numbers.time, 100, "1m40s"),
    ],
)
def test_a_number_has_its_digits_and_its_unit(form, value, expected):
    assert form(value) == expected


@pytest.mark.parametrize("form", [numbers.nats, numbers.difference, numbers.p_value, numbers.count, numbers.memory])
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_known_is_a_dash(form, value):
    assert form(value) == "–"


def test_an_interval_needs_both_ends():
    assert numbers.interval(-0.0143, 0.0092) == "−0.0143 to +0.0092"
    assert numbers.interval(-math.inf, math.inf) == "–"


def test_values_of_a_config():
    assert [numbers.value(x) for x in (0.001, 1e-5, 0.30000000000000004, "", "rope", True, 4)] == [
        "0.001",
        "1e-05",
        "0.3",
        '""',
        "rope",
        "True",
        "4",
    ]
