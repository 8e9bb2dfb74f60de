import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slm_core.config import Optim
from slm_core.config.option import options
from slm_core.training.schedules import SCHEDULES, learning_rates, warmup_steps


def rates(schedule, steps=1000, **fields):
    return learning_rates(Optim(**({"schedule": schedule, "lr": 2e-3, "warmup_steps": 100} | fields)), steps)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_is_a_line_that_meets_the_peak(schedule):
    table = rates(schedule)
    assert table.dtype == np.float64 and table.shape == (1000,)
    for k in range(100):
        assert table[k] == pytest.approx(2e-3 * (k + 1) / 101, rel=1e-15)
    assert table[100] == 2e-3 == table.max()


@pytest.mark.parametrize(("steps", "rising"), [(1, 0), (3, 1), (20, 10), (100, 50), (600, 50)])
def test_warmup_that_is_unset_follows_the_steps(steps, rising):
    assert warmup_steps(Optim(), steps) == rising
    np.testing.assert_array_equal(
        learning_rates(Optim(), steps), learning_rates(Optim(warmup_steps=rising), steps), strict=True
    )


def test_every_schedule_of_the_config_is_here():
    assert set(SCHEDULES) == set(options(Optim)["schedule"].choices)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 1.0])
def test_the_last_update_has_the_lowest_rate(schedule, ratio):
    assert rates(schedule, min_lr_ratio=ratio)[-1] == 2e-3 * ratio


def test_constant():
    assert (rates("constant")[100:] == 2e-3).all()


def test_linear():
    table = rates("linear")
    expected = [2e-3 - (2e-3 - 2e-4) * (k - 100) / 899 for k in range(100, 1000)]
    np.testing.assert_allclose(table[100:], expected, rtol=1e-14)


def test_cosine():
    expected = [2e-4 + 0.5 * (2e-3 - 2e-4) * (1 + math.cos(math.pi * (k - 100) / 899)) for k in range(100, 1000)]
    np.testing.assert_allclose(rates("cosine")[100:], expected, rtol=1e-14)


def test_wsd():
    table = rates("wsd", decay_fraction=0.25)
    assert (table[100:750] == 2e-3).all()
    expected = [2e-3 - (2e-3 - 2e-4) * (k - 749) / 250 for k in range(749, 1000)]
    np.testing.assert_allclose(table[749:], expected, rtol=1e-14)


@example("cosine", 10, 0, 0.9999999999999999, 1.0)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 60),
    warmup=st.integers(0, 70),
    ratio=st.floats(0.01, 1),
    decay=st.floats(0.01, 1),
)
def test_any_schedule_rises_once_and_then_only_falls(schedule, steps, warmup, ratio, decay):
    table = rates(schedule, steps, warmup_steps=warmup, min_lr_ratio=ratio, decay_fraction=decay)
    assert np.isfinite(table).all() and (table > 0).all() and (table <= 2e-3).all()
    top = int(table.argmax())
    assert top == min(warmup, steps - 1)
    rounding = 2e-3 * np.finfo(float).eps if ratio > 1 - 1e-9 else 0  # of a fall too small for a float64 to show
    assert (np.diff(table[: top + 1]) > 0).all() and (np.diff(table[top:]) <= rounding).all()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_two_updates_from_the_peak_are_the_peak_and_the_floor(schedule):
    assert rates(schedule, steps=102, min_lr_ratio=0.1)[100:].tolist() == [2e-3, 2e-4]


def test_a_decay_of_less_than_an_update_takes_one():
    table = rates("wsd", steps=120, decay_fraction=0.001, min_lr_ratio=0.1)
    assert table[100:].tolist() == [2e-3] * 19 + [2e-4]
