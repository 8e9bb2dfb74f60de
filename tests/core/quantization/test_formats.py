"""Matrices in few bits: the formats against their papers, and weights on their way in and out."""

import numpy as np
import pytest

from slm_core.config import Config, Finetune
from slm_core.model.initialization import Spec
from slm_core.quantization import formats

PUBLISHED = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""QLoRA (Dettmers et al. 2023), appendix E."""

SHAPES = [(64, 64), (40, 6), (7, 2), (1, 130), (300, 128)]


def matrix(shape, dtype="float32") -> np.ndarray:
    return (0.02 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


def restored(kind: str, values: np.ndarray) -> np.ndarray:
    form = formats.FORMATS[kind]
    return form.dequantise(**form.quantise(values))


def test_the_published_values_of_nf4():
    np.testing.assert_allclose(formats.normal_quantiles(), PUBLISHED, atol=2.5e-7)
    np.testing.assert_array_equal(formats.NF4, formats.normal_quantiles())
    assert formats.NF4.dtype == np.float32 and 0.0 in formats.NF4


@pytest.mark.parametrize("kind", formats.FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_parts_are_as_declared(kind, dtype, shape):
    form = formats.FORMATS[kind]
    parts = form.quantise(matrix(shape, dtype))
    declared = form.declared(shape, Spec("matrix", std=0.02))
    assert list(parts) == list(declared)
    assert form.shape(parts["codes"].shape) == shape and formats.BY_CODES[str(parts["codes"].dtype)] is form
    for leaf, (expected, spec) in declared.items():
        assert parts[leaf].shape == expected and parts[leaf].dtype == (spec.dtype or dtype) and spec.role == "frozen"


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_off_by_half_a_step_at_most(shape):
    values = matrix(shape, "float64")
    steps = np.abs(values).max(0) / 127
    assert (np.abs(restored("int8", values) - values) <= steps / 2 * (1 + 1e-12)).all()


def test_int8_rounds_half_to_even():
    codes = formats.int8_parts(np.array([[127.0], [2.5], [3.5], [-2.5]]))["codes"]
    np.testing.assert_array_equal(codes[:, 0], [127, 2, 4, -2])


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_takes_the_nearest_value(shape):
    values = matrix(shape, "float64")
    blocks = np.pad(values.reshape(-1), (0, -values.size % 64)).reshape(-1, 64)
    shares = blocks / np.abs(blocks).max(1, keepdims=True)
    nearest = np.abs(shares[..., None] - formats.NF4).argmin(-1).reshape(-1)[: values.size].reshape(shape)
    codes = formats.nf4_parts(values)["codes"]
    np.testing.assert_array_equal(codes >> 4, nearest[:, 0::2])
    np.testing.assert_array_equal(codes & 15, nearest[:, 1::2])


def test_nf4_quantises_its_scales_in_eight_bits():
    values = matrix((300, 128), "float64")
    largest = np.abs(values.reshape(-1, 64)).max(1)
    parts = formats.nf4_parts(values)
    offset, step = (np.repeat(parts[leaf], 256)[: largest.size] for leaf in ("scale_offset", "scale_step"))
    scales = (formats.DYNAMIC[parts["scale_codes"]] + offset) * step
    assert np.abs(scales - largest).max() < 0.02 * np.abs(largest - largest.mean()).max()
    bits = 8 * sum(part.nbytes for part in formats.nf4_parts(values.astype("float32")).values()) / values.size
    assert bits == pytest.approx(4 + 8 / 64 + 2 * 32 / (64 * 256), abs=2e-3)


@pytest.mark.parametrize("kind", formats.FORMATS)
@pytest.mark.parametrize("factor", [0.0, 1e-45, 1e-30, 1e30])
def test_zeros_and_extremes(kind, factor):
    values = matrix((64, 64)) * np.float32(factor)
    values[:, 0] = 0
    dequantised = restored(kind, values)
    assert np.isfinite(dequantised).all() and (dequantised[:, 0] == 0).all()
    assert np.abs(dequantised - values).max() <= max(0.2 * np.abs(values).max(), 1e-19)


def test_a_column_or_block_of_zeros_is_not_divided():
    values = np.zeros((64, 2), np.float32)
    values[0, 1] = 1.0
    with np.errstate(all="raise"):
        int8, nf4 = formats.int8_parts(values), formats.nf4_parts(values)
    np.testing.assert_array_equal(int8["scale"], np.float32([0, 1 / 127]))
    np.testing.assert_array_equal(nf4["codes"][32:], np.full((32, 1), 0x77))  # 7 is the code of 0


def test_the_smallest_magnitude_is_no_zero():
    assert formats.int8_parts(np.array([[formats.SMALLEST, formats.SMALLEST / 2]]))["codes"].tolist() == [[127, 0]]


def test_nf4_takes_matrices_of_an_even_width_and_int8_all():
    assert [formats.fits("nf4", (3, width)) for width in (1, 2, 3, 4, 6)] == [False, True, False, True, True]
    assert all(formats.fits("int8", (3, width)) for width in (1, 2))
    assert not any(formats.fits("float", (3, width)) for width in (1, 2))


def test_weights_in_and_out():
    declared = {
        "a.codes": ((6, 2), Spec("frozen", std=0.02, dtype="uint8")),
        **{f"a.{leaf}": part for leaf, part in formats.FORMATS["nf4"].declared((6, 4), Spec("matrix")).items()},
        "a.lora_a": ((6, 2), Spec("matrix", std=0.4)), "a.lora_b": ((2, 4), Spec("matrix")),
        "b.weight": ((3, 2), Spec("frozen", std=0.1)), "b.bias": ((2,), Spec("frozen")),
    }  # fmt: skip
    assert list(formats.dequantised(declared)) == ["a.weight", "a.lora_a", "a.lora_b", "b.weight", "b.bias"]
    assert formats.dequantised(declared)["a.weight"][0] == (6, 4)
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape) for name, (shape, _) in formats.dequantised(declared).items()}
    stored = dict(formats.stored(values.items(), declared, np.dtype("float32")))
    assert stored.keys() == declared.keys()
    assert all(stored[name].shape == shape for name, (shape, _) in declared.items())

    config = Config(finetune=Finetune(kind="lora", rank=2, alpha=3.0))
    merged = formats.merged(stored, config)
    assert list(merged) == ["a.weight", "b.weight", "b.bias"]
    expected = restored("nf4", values["a.weight"].astype("float32")) + 1.5 * values["a.lora_a"] @ values["a.lora_b"]
    np.testing.assert_allclose(merged["a.weight"], expected, atol=1e-6)
    assert merged["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(merged["b.weight"], values["b.weight"].astype("float32"))
    floating = {"b.weight": values["b.weight"], "scale": values["b.bias"]}
    assert dict(formats.merged(floating, config)).keys() == floating.keys()
