"""Block-wise quantisation is, bit by bit, the specification in NumPy."""

from collections.abc import Iterator

import numpy as np

from slm_core.quantization.blockwise import dequantise, quantise, signed_code, thresholds, unsigned_code

SIZES = [(515, 256), (512, 64), (7, 4)]


def inputs(dtype: type, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields values that rounding could tell apart: of any size, at both ends of the dtype, on thresholds."""
    rng, info = np.random.default_rng(size), np.finfo(dtype)
    tiny, largest = float(info.tiny), float(info.max)
    normal = rng.standard_normal(size)
    yield "spread", normal * 10.0 ** rng.integers(-9, 3, size)
    yield "zeros", np.zeros(size)
    yield "subnormal", normal * tiny / 8
    yield "about the smallest scale", normal * tiny * 2.0 ** rng.integers(-20, 40, size)
    yield "the smallest scale", np.sign(normal) * 2.0**24 * tiny
    yield "one huge", np.where(np.arange(size) == size // 2, largest, normal)
    yield "sparse", np.where(np.arange(size) % 3, 0, -1e-3) + np.where(np.arange(size) % 7, 0, tiny / 4)
    for code in (signed_code(), unsigned_code()):
        ties = thresholds(code).astype(dtype)
        beside = [np.nextafter(ties, dtype(end)) for end in (2, -2)]
        yield "thresholds", np.resize(np.concatenate([[1], ties, *beside]), size)


def test_codes_scales_and_values_are_the_specification_bit_by_bit(twin):
    for dtype in (np.float32, np.float64):
        for code in (signed_code(), unsigned_code()):
            for size, block in SIZES:
                for name, x in inputs(dtype, size):
                    _same_bits(twin, np.asarray(x if code[0] else np.abs(x), dtype), block, code, name)
            many = np.random.default_rng(1).standard_normal(2**16).astype(dtype)
            _same_bits(twin, many if code[0] else np.square(many), 4, code, "many scales")


def _same_bits(twin, x: np.ndarray, block: int, code: np.ndarray, name: str) -> None:
    codes, scales = quantise(x, block, code)
    expected = codes, scales, dequantise(codes, scales, block, code)
    for what, a, b in zip(("codes", "scales", "values"), twin.quantised(x, block, code), expected, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), f"{what} of {name}, {x.dtype}, {len(x)} by {block}"
