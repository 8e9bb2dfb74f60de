"""Makes inputs of attention kernels, and compares outputs and gradients with the formula."""

import itertools

import numpy as np

from tests.reference import attention as reference

TOLERANCE = dict(rtol=1e-12, atol=1e-12)
TILE = 4
"""Queries and keys per tile in these tests: several tiles, the last one short."""
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
    """Makes {input: array} and a gradient of the output."""
    rng = np.random.default_rng(0)
    shapes = dict(q=(batch, time, 4, 5), k=(batch, keys, kv_heads, 5), v=(batch, keys, kv_heads, 6))
    shapes |= dict(bias=(4, distances)) if bias else {}
    shapes |= dict(sinks=(4,)) if sinks else {}
    inputs = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return inputs, rng.standard_normal((batch, time, 4, 6)).astype(dtype)


def check_gradients(twin, name, inputs, dy, tolerance=TOLERANCE, **options):
    """Compares the kernel's output and every gradient with the formula."""
    wide = {key: np.float64(x) for key, x in inputs.items()}
    formula = {key: value for key, value in options.items() if key not in ("compiled", "checkpointed")}
    expected, gradients = reference.attention(**wide, dy=np.float64(dy), scale=0.7, **formula)
    y, y_gradients = twin.kernel_gradients(name, inputs, dy, scale=0.7, **options)
    assert y.dtype == inputs["v"].dtype
    np.testing.assert_allclose(np.float64(y), expected, err_msg="y", **tolerance)
    assert y_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        np.testing.assert_allclose(np.float64(y_gradients[key]), gradient, err_msg=key, **tolerance)


def check_case(twin, name, place, kv_heads, window, softcap, bias, sinks, **how):
    place = dict(PLACES[place])
    inputs, dy = problem(keys=place.pop("keys"), kv_heads=kv_heads, bias=bias, sinks=sinks)
    check_gradients(twin, name, inputs, dy, window=window, softcap=softcap, **place, **how)
