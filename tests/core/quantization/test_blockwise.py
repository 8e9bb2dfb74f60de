"""The specification of dynamic 8-bit quantisation against the paper's description, value by value."""

import numpy as np
import pytest

from slm_core.quantization.blockwise import (
    dequantise,
    quantise,
    scale_limits,
    signed_code,
    thresholds,
    unsigned_code,
    zero_of,
)

CODES = {"signed": signed_code(), "unsigned": unsigned_code()}


@pytest.mark.parametrize("name", CODES)
def test_a_table_doubles_its_entries_per_decade(name):
    code, fewest = CODES[name], {"signed": 1, "unsigned": 2}[name]
    assert len(code) == 256 and code.dtype == np.float32 and (np.diff(code) > 0).all()
    for decade in range(7):
        low, high = 10.0 ** (decade - 7), 10.0 ** (decade - 6)
        inside = code[(code > low) & (code < high)].astype(float)
        assert len(inside) == fewest * 2**decade
        cell = (high - low) / len(inside)
        np.testing.assert_allclose(inside, low + cell * (np.arange(len(inside)) + 0.5), rtol=1e-6)
    assert code[zero_of(code)] == 0 and code[-1] == 1


def test_the_tables_are_the_published_ones():
    """Ends of the tables of the authors' library (bitsandbytes, `create_dynamic_map`), float32."""
    np.testing.assert_allclose(CODES["signed"][:3], [-0.9929687, -0.9789063, -0.9648438], rtol=1e-6)
    np.testing.assert_allclose(CODES["signed"][126:130], [-5.5e-7, 0, 5.5e-7, 3.25e-6], rtol=1e-6)
    np.testing.assert_allclose(CODES["unsigned"][:4], [0, 3.25e-7, 7.75e-7, 2.125e-6], rtol=1e-6)


@pytest.mark.parametrize("name", CODES)
def test_a_code_is_the_nearest_entry_the_lower_of_two(name):
    code = CODES[name].astype(float)
    x = np.concatenate([[1.0], np.linspace(code[0], 1, 999), thresholds(CODES[name])])
    codes, scales = quantise(x, len(x), CODES[name])
    distances = np.abs(x[:, None] - code)
    assert scales == [1.0]
    np.testing.assert_allclose(distances[np.arange(len(x)), codes], distances.min(1), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(codes[-255:], np.arange(255))


def test_blocks_have_their_own_scales_and_the_last_may_be_short():
    x = np.array([[0.0, -2.0, 1.0], [0.0, 0.0, 0.0], [5.0, np.finfo(np.float64).tiny, 0.0]])[:, :3].reshape(-1)[:8]
    codes, scales = quantise(x.reshape(4, 2), 3, CODES["signed"])
    assert codes.shape == (4, 2) and codes.dtype == np.uint8
    np.testing.assert_array_equal(scales, [2.0, 1.0, 5.0])
    values = dequantise(codes, scales, 3, CODES["signed"])
    np.testing.assert_allclose(values, x.reshape(4, 2), rtol=1e-2, atol=1e-300)


def test_large_values_keep_two_digits_and_small_ones_their_magnitude():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x = (rng.choice([-1, 1], 4096) * 10.0 ** rng.uniform(-6, 0, 4096)).astype(dtype)
        error = np.abs(dequantise(*quantise(x, 256, CODES["signed"]), 256, CODES["signed"]) - x)
        share = np.abs(x) / np.repeat(np.abs(x).reshape(-1, 256).max(1), 256)
        for low, bound in ((0.1, 0.08), (1e-2, 0.15), (1e-3, 0.3), (1e-5, 1.0)):
            assert (error <= bound * np.abs(x))[share > low].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_and_the_largest_scale_make_no_subnormal_number(dtype):
    tiny = np.finfo(dtype).tiny
    low, high = scale_limits(np.dtype(dtype))
    assert low == 2**24 * tiny and high * tiny == 1
    smallest = min(float(np.abs(code[code != 0]).min()) for code in CODES.values())
    assert smallest * low >= tiny and 1 / high >= tiny
    for largest, scale in ((low, low), (low * 0.99, 1.0), (high, high)):
        assert quantise(np.array([largest, 0], dtype), 2, CODES["signed"])[1] == [dtype(scale)]
