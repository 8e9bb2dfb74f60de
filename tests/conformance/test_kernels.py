"""The attention kernels against the formula in float64, forward and backward."""

import sys

import numpy as np
import pytest

from parity.fields import choices
from tests.conformance import arrays
from tests.conformance.arrays import numbers
from tests.conformance.kernel_cases import (
    CASES,
    FEW_CASES,
    TILE,
    TIME,
    TOLERANCE,
    check_case,
    check_gradients,
    problem,
)
from tests.reference import layers as reference

KERNELS = choices("model.attention.kernel")
FORWARD_CASES = [
    dict(kv_heads=kv_heads, start=start, window=window, softcap=softcap)
    for kv_heads in (1, 2, 4)
    for start, window, softcap in ((0, 0, 0.0), (0, 3, 0.0), (0, 0, 2.0), (3, 0, 0.0), (3, 2, 2.0))
]
"""Keys are start + time: as with a cache."""


@pytest.fixture(autouse=True)
def small_tiles(twin, monkeypatch):
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.flash"], "TILE", TILE)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", FORWARD_CASES, ids=str)
def test_output_is_the_formula(twin, name, case):
    time, width, kv_heads = 6, 5, case["kv_heads"]
    options = dict(start=case["start"], scale=0.7, window=case["window"], softcap=case["softcap"])
    keys = options["start"] + time
    q, k, v = numbers((2, time, 4, width), (2, keys, kv_heads, width), (2, keys, kv_heads, width))
    actual = twin.kernel(name, q, k, v, **options)
    np.testing.assert_allclose(actual, reference.attention(q, k, v, **options), **arrays.TOLERANCE)


@pytest.mark.parametrize("name", KERNELS)
def test_output_with_every_option_is_the_formula(twin, name):
    """The options are a rolling cache that is not full, values of another width, biases by distance and sinks."""
    q, k, v, bias, sinks = numbers((2, 3, 4, 5), (2, 6, 2, 5), (2, 6, 2, 3), (4, 9), (4,))
    options = dict(start=2, keys_start=-1, scale=0.7, window=3, softcap=2.0, bias=bias, sinks=sinks)
    actual = twin.kernel(name, q, k, v, **options)
    np.testing.assert_allclose(actual, reference.attention(q, k, v, **options), **arrays.TOLERANCE)


@pytest.mark.parametrize("name", KERNELS)
def test_an_unwritten_cache_is_hidden(twin, name):
    """Keys after the last query change nothing, even if they are large."""
    q, k, v = numbers((1, 2, 4, 5), (1, 6, 2, 5), (1, 6, 2, 5))
    options = dict(start=2, scale=0.7, window=0, softcap=0.0)
    sound = twin.kernel(name, q, k, v, **options)
    k[:, 4:], v[:, 4:] = 1e6, 1e6
    np.testing.assert_array_equal(twin.kernel(name, q, k, v, **options), sound)


def gradient_cases():
    """Yields every kernel with every case. Flax takes longer per case: some of its cases are slow tests."""
    for name in KERNELS:
        for case in CASES:
            yield pytest.param("torch", name, case, id=f"torch-{name}-{case}")
        for case in CASES if name == "flash" else FEW_CASES:
            slow = [] if case["kv_heads"] == 2 else [pytest.mark.slow]
            yield pytest.param("flax", name, case, id=f"flax-{name}-{case}", marks=slow)


@pytest.mark.parametrize(("twin", "name", "case"), list(gradient_cases()), indirect=["twin"])
def test_gradients_are_the_formula(twin, name, case):
    check_case(twin, name, **case)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("name", ["dot_product", "flash"])
def test_rows_that_see_nothing_are_zero(twin, name, sinks):
    """The first three queries stand before all keys, or all keys before position 0: zeros, and finite gradients."""
    for start, keys_start, window in ((0, 3, 0), (2, -9, 0), (0, 3, 2)):
        inputs, dy = problem(keys=TIME, bias=True, sinks=sinks)
        check_gradients(twin, name, inputs, dy, start=start, keys_start=keys_start, window=window)


@pytest.mark.parametrize("start", [0, 5, 17])
@pytest.mark.parametrize("name", KERNELS)
def test_one_query_is_a_step_of_decoding(twin, name, start):
    """There is more than a tile of keys, some of them not written yet."""
    inputs, dy = problem(keys=TILE * TILE + 3, time=1, bias=True, sinks=True, distances=TILE * TILE + 3)
    check_gradients(twin, name, inputs, dy, start=start, compiled=name == "flash")


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.slow
def test_float16_is_the_formula_to_its_rounding(twin, name):
    inputs, dy = problem(keys=TIME, bias=True, sinks=True, dtype=np.float16)
    tolerance = dict(rtol=2e-2, atol=2e-2)
    check_gradients(twin, name, inputs, dy, tolerance, start=0, softcap=5.0, compiled=name == "flash")


def test_bfloat16_is_float32_to_its_rounding(twin):
    inputs, _ = problem(keys=TIME)
    (y, dtype), (expected, _) = (
        twin.kernel_in(dtype, "flash", inputs, start=0, scale=0.7) for dtype in ("bfloat16", "float32")
    )
    assert dtype == "bfloat16"
    np.testing.assert_allclose(y, expected, rtol=5e-2, atol=5e-2)


def test_hidden_tiles_are_left_out(twin):
    """A tile that is entirely hidden is never read: a NaN there would reach the output."""
    inputs, dy = problem(keys=5 * TILE, time=5 * TILE, distances=5 * TILE)
    late = dict(inputs, q=inputs["q"][:, 3 * TILE :])  # sees the third tile of keys, and those after it
    late["k"][:, : 2 * TILE], late["v"][:, : 2 * TILE] = np.nan, np.nan
    options = dict(start=3 * TILE, window=TILE, scale=0.7, compiled=True)
    y, gradients = twin.kernel_gradients("flash", late, dy[:, 3 * TILE :], **options)
    assert np.isfinite(y).all() and all(np.isfinite(x).all() for x in gradients.values())
    early = dict(inputs, q=inputs["q"][:, :TILE])
    early["k"][:, :TILE], early["v"][:, :TILE] = 1, 1
    early["k"][:, TILE:], early["v"][:, TILE:] = np.nan, np.nan
    y, gradients = twin.kernel_gradients("flash", early, dy[:, :TILE], start=0, scale=0.7, compiled=True)
    assert np.isfinite(y).all() and all(np.isfinite(x).all() for x in gradients.values())


def test_a_checkpointed_kernel_has_the_same_gradients(twin):
    inputs, dy = problem(keys=TIME, bias=True, sinks=True)
    how = dict(checkpointed=True, compiled=True)
    check_gradients(twin, "flash", inputs, dy, TOLERANCE, start=0, window=3, softcap=2.0, **how)
