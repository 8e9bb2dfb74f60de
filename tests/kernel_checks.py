"""What the attention kernels of either twin must do, forward and backward.

Each check takes the kernel as run(inputs, dy, **options) -> (y, {input: gradient}), inputs being {name: NumPy array}.
"""

import itertools

import numpy as np

from tests.reference import attention as oracles_attention

TOLERANCE = dict(rtol=1e-12, atol=1e-12)
TILE = 4
"""Queries and keys of a tile in these checks: several tiles, the last one short."""
TIME = 5
PLACES = {
    "training": dict(start=0, keys_start=0, keys=TIME),
    "cache, not all written": dict(start=2, keys_start=0, keys=2 + TIME + 1),
    "rolling cache, not full": dict(start=1, keys_start=-2, keys=3 + TIME),
}
CASES = [
    dict(place=place, kv_heads=kv_heads, window=window, softcap=softcap, bias=bias, sinks=sinks)
    for place, kv_heads, window, softcap, bias, sinks in itertools.product(
        PLACES, (1, 2, 4), (0, 3), (0.0, 2.0), (False, True), (False, True)
    )
]
FEW_CASES = [
    dict(place=place, kv_heads=2, **options)
    for place in PLACES
    for options in (
        dict(window=0, softcap=0.0, bias=False, sinks=False),
        dict(window=3, softcap=0.0, bias=False, sinks=False),
        dict(window=0, softcap=2.0, bias=False, sinks=False),
        dict(window=0, softcap=0.0, bias=True, sinks=False),
        dict(window=0, softcap=0.0, bias=False, sinks=True),
        dict(window=3, softcap=2.0, bias=True, sinks=True),
    )
]


def problem(*, keys, kv_heads=2, time=TIME, distances=16, bias=False, sinks=False, batch=2, dtype=np.float64):
    """Returns inputs and dy."""
    rng = np.random.default_rng(0)
    shapes = dict(q=(batch, time, 4, 5), k=(batch, keys, kv_heads, 5), v=(batch, keys, kv_heads, 6))
    shapes |= dict(bias=(4, distances)) if bias else {}
    shapes |= dict(sinks=(4,)) if sinks else {}
    inputs = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return inputs, rng.standard_normal((batch, time, 4, 6)).astype(dtype)


def check(run, inputs, dy, tolerance=TOLERANCE, **options):
    """The kernel's output and every gradient are the formula's."""
    wide = {name: np.float64(x) for name, x in inputs.items()}
    expected, gradients = oracles_attention.attention(**wide, dy=np.float64(dy), scale=0.7, **options)
    found, found_gradients = run(inputs, dy, scale=0.7, **options)
    assert found.dtype == inputs["v"].dtype
    np.testing.assert_allclose(np.float64(found), expected, err_msg="y", **tolerance)
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(np.float64(found_gradients[name]), gradient, err_msg=name, **tolerance)


def check_case(run, place, kv_heads, window, softcap, bias, sinks):
    place = dict(PLACES[place])
    inputs, dy = problem(keys=place.pop("keys"), kv_heads=kv_heads, bias=bias, sinks=sinks)
    check(run, inputs, dy, window=window, softcap=softcap, **place)


def check_rows_that_see_nothing(run, sinks):
    """The first three queries stand before all keys, or all keys before position 0: zeros, and finite gradients."""
    for start, keys_start, window in ((0, 3, 0), (2, -9, 0), (0, 3, 2)):
        inputs, dy = problem(keys=TIME, bias=True, sinks=sinks)
        check(run, inputs, dy, start=start, keys_start=keys_start, window=window)


def check_one_query(run, start):
    """A step of decoding: one query, more than a tile of keys, some of them not written yet."""
    inputs, dy = problem(keys=TILE * TILE + 3, time=1, bias=True, sinks=True, distances=TILE * TILE + 3)
    check(run, inputs, dy, start=start)


def check_half(run):
    inputs, dy = problem(keys=TIME, bias=True, sinks=True, dtype=np.float16)
    check(run, inputs, dy, dict(rtol=2e-2, atol=2e-2), start=0, softcap=5.0)


def check_hidden_tiles_are_left_out(run):
    """What stands in a tile that is hidden as a whole is never read: a NaN there would show."""
    inputs, dy = problem(keys=5 * TILE, time=5 * TILE, distances=5 * TILE)
    late = dict(inputs, q=inputs["q"][:, 3 * TILE :])  # sees the third tile of keys, and those after it
    late["k"][:, : 2 * TILE], late["v"][:, : 2 * TILE] = np.nan, np.nan
    y, gradients = run(late, dy[:, 3 * TILE :], start=3 * TILE, window=TILE, scale=0.7)
    assert np.isfinite(y).all() and all(np.isfinite(x).all() for x in gradients.values())
    early = dict(inputs, q=inputs["q"][:, :TILE])
    early["k"][:, :TILE], early["v"][:, :TILE] = 1, 1
    early["k"][:, TILE:], early["v"][:, TILE:] = np.nan, np.nan
    y, gradients = run(early, dy[:, :TILE], start=0, scale=0.7)
    assert np.isfinite(y).all() and all(np.isfinite(x).all() for x in gradients.values())
