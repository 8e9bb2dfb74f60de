"""Quantises frozen weight matrices to int8 or nf4, and converts a model's weights to these formats and back.

int8 is vector-wise (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339), with one scale per output channel:

    scale[o] = max_i |w[i, o]| / 127,  code = round(w / scale), half to even,  w = code scale

nf4 is QLoRA's (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). The flattened matrix is cut into blocks of 64,
and the scale of a block is its largest |w|. A code names the nearest of 16 quantiles of the normal distribution. The
scales minus their mean are themselves quantised to 8 bits (`slm_core.quantization.blockwise`), in groups of 256:

    w = NF4[code] scale,  scale = (DYNAMIC[scale_code] + scale_offset) scale_step,  scale_offset = mean / scale_step

Only this module quantises, for both twins. Each twin dequantises, in the dtype of the scales, and gets the same bits.
For that reason no product is followed by a sum, which a compiler may contract into one rounding: the offset is divided
by the step instead.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from slm_core.config import Config
from slm_core.model.initialization import Spec
from slm_core.model.weights import Lazy, Weights
from slm_core.quantization.blockwise import quantise, signed_code

BLOCK, GROUP = 64, 256  # of nf4: weights per scale, scales per step
SMALLEST = 2.0**-64
"""A largest magnitude below this counts as 0: XLA rounds subnormal products to 0, NumPy does not."""

SCALES = ("scale", "scale_codes", "scale_offset", "scale_step")
"""Last parts of the names of a quantised matrix's parameters, beside "codes"."""
ADAPTER = ("lora_a", "lora_b")
"""Last parts of the names of an adapter's parameters."""

Shape = tuple[int, ...]
Declared = Mapping[str, tuple[Shape, Spec]]
Parts = dict[str, np.ndarray]
"""{last part of a parameter's name: array} of one matrix."""


def normal_quantiles() -> np.ndarray:
    """Computes the 16 values of NF4, float32, rising from -1 to 1; one of them is 0.

    They are quantiles of the normal distribution at equal distances in probability, divided by the largest: nine from 0
    upwards and eight from 0 downwards, which share the 0. The outermost probability leaves out half a point's share:
    the mean of that share with 15 and with 16 points.
    """
    furthest = (29 / 30 + 31 / 32) / 2

    def quantiles(count: int) -> list[float]:
        return [NormalDist().inv_cdf(p) for p in np.linspace(0.5, furthest, count)]

    values = np.array([-value for value in quantiles(8)[:0:-1]] + quantiles(9))
    return (values / values[-1]).astype(np.float32)


NF4 = normal_quantiles()
NF4_PAIRS = np.stack(np.meshgrid(NF4, NF4, indexing="ij"), axis=-1).reshape(256, 2)
"""The two values of a byte, float32 [256, 2]: that of its upper four bits comes first."""
DYNAMIC = signed_code()
"""The table of the 8-bit scales, float32 [256]."""


def int8_parts(matrix: np.ndarray) -> Parts:
    """Quantises a matrix [in, out] to int8."""
    scale = _magnitude(np.abs(matrix).max(axis=0)) / 127
    codes = np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)
    return {"codes": np.rint(codes).astype(np.int8), "scale": scale}


def int8_matrix(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Dequantises an int8 matrix: [in, out], in the dtype of the scale."""
    return codes.astype(scale.dtype) * scale


def nf4_parts(matrix: np.ndarray) -> Parts:
    """Quantises a matrix [in, out] to nf4; `out` must be even. If two codes are equally near, the lower is taken."""
    blocks = padded(matrix.reshape(-1), BLOCK).reshape(-1, BLOCK)
    largest = _magnitude(np.abs(blocks).max(axis=1))
    shares = np.divide(blocks, largest[:, None], out=np.zeros_like(blocks), where=largest[:, None] > 0)
    levels = NF4.astype(np.float64)
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, shares).astype(np.uint8).reshape(-1)[: matrix.size]
    mean = matrix.dtype.type(largest.mean(dtype=np.float64))
    scale_codes, step = quantise(largest - mean, GROUP, DYNAMIC)
    step = step.astype(matrix.dtype)
    return {
        "codes": (nearest[0::2] << 4 | nearest[1::2]).reshape(len(matrix), -1),
        "scale_codes": scale_codes,
        "scale_offset": mean / step,
        "scale_step": step,
    }


def nf4_matrix(
    codes: np.ndarray, scale_codes: np.ndarray, scale_offset: np.ndarray, scale_step: np.ndarray
) -> np.ndarray:
    """Dequantises an nf4 matrix: [in, out], in the dtype of the steps."""
    dtype, count = scale_step.dtype, len(scale_codes)
    offset, step = (np.repeat(part, GROUP)[:count] for part in (scale_offset, scale_step))
    scale = (DYNAMIC.astype(dtype)[scale_codes] + offset) * step
    levels = NF4_PAIRS.astype(dtype)[padded(codes.reshape(-1), BLOCK // 2)].reshape(-1, BLOCK)
    return (levels * scale[:, None]).reshape(-1)[: 2 * codes.size].reshape(len(codes), -1)


def padded(values: np.ndarray, block: int) -> np.ndarray:
    """Appends zeros to a vector until it fills whole blocks."""
    return np.pad(values, (0, -len(values) % block))


def _magnitude(largest: np.ndarray) -> np.ndarray:
    """Replaces magnitudes below SMALLEST by 0."""
    return np.where(largest < SMALLEST, largest.dtype.type(0), largest)


class Format(NamedTuple):
    """A format of quantised matrices.

    Args:
      quantise: makes the parts from a matrix [in, out]; all but the codes have the matrix's dtype.
      dequantise: makes the matrix from its parts.
      declared: makes {last part of the name: (shape, spec)} of the parts from the matrix's shape and spec.
      shape: makes the matrix's shape from the codes' shape.
    """

    quantise: Callable[[np.ndarray], Parts]
    dequantise: Callable[..., np.ndarray]
    declared: Callable[[Shape, Spec], dict[str, tuple[Shape, Spec]]]
    shape: Callable[[Shape], Shape]


def _int8_declared(shape: Shape, spec: Spec) -> dict[str, tuple[Shape, Spec]]:
    return {"codes": (shape, _codes(spec, "int8")), "scale": (shape[1:], Spec("frozen"))}


def _nf4_declared(shape: Shape, spec: Spec) -> dict[str, tuple[Shape, Spec]]:
    blocks = -(-shape[0] * shape[1] // BLOCK)
    group = (-(-blocks // GROUP),)
    return {
        "codes": ((shape[0], shape[1] // 2), _codes(spec, "uint8")),
        "scale_codes": ((blocks,), Spec("frozen", dtype="uint8")),
        "scale_offset": (group, Spec("frozen")),
        "scale_step": (group, Spec("frozen")),
    }


def _codes(spec: Spec, dtype: str) -> Spec:
    """Makes the spec of codes, which keeps how the initial values of their matrix are drawn."""
    return dataclasses.replace(spec, role="frozen", dtype=dtype)


FORMATS = {
    "int8": Format(int8_parts, int8_matrix, _int8_declared, lambda shape: shape),
    "nf4": Format(nf4_parts, nf4_matrix, _nf4_declared, lambda shape: (shape[0], 2 * shape[1])),
}
BY_CODES = {"int8": FORMATS["int8"], "uint8": FORMATS["nf4"]}
"""{dtype of the codes: format}."""


def fits(stored_as: str, shape: Shape) -> bool:
    """Says whether a matrix [in, out] fits the format: nf4 packs two outputs into a byte, so `out` must be even."""
    return stored_as == "int8" or (stored_as == "nf4" and shape[1] % 2 == 0)


def dequantised(declared: Declared) -> dict[str, tuple[Shape, Spec]]:
    """Lists the declared parameters with each quantised matrix as a floating `weight`, in the order declared."""
    parameters = {}
    for name, (shape, spec) in declared.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "codes":
            parameters[f"{path}.weight"] = BY_CODES[spec.dtype].shape(shape), dataclasses.replace(spec, dtype="")
        elif f"{path}.codes" not in declared or leaf not in SCALES:
            parameters[name] = shape, spec
    return parameters


def stored(
    values: Iterable[tuple[str, np.ndarray]], declared: Declared, dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of the parameters that a model declares, one matrix at a time.

    Args:
      values: (name, array) of the parameters that `dequantised` lists, floating.
      declared: the model's parameters.
      dtype: of everything but the codes.
    """
    for name, value in values:
        path = name.removesuffix(".weight")
        value = value.astype(dtype, copy=False)
        if name in declared:
            yield name, value
        else:
            parts = BY_CODES[declared[f"{path}.codes"][1].dtype].quantise(value)
            yield from ((f"{path}.{leaf}", part) for leaf, part in parts.items())


def merged(weights: Weights, config: Config) -> Weights:
    """Merges the adapters of a model into its matrices: W + (alpha / rank) A B.

    Returns the weights of a model without adapters, by canonical name; quantised matrices are dequantised. Each array
    is computed when it is asked for.

    Args:
      weights: of the model with adapters, by canonical name, without "params/".
      config: of the run that the weights come from.
    """
    scaling = config.finetune.alpha / config.finetune.rank

    def reader(name: str) -> Callable[[], np.ndarray]:
        path, _, leaf = name.rpartition(".")
        return (lambda: _merged_matrix(weights, path, scaling)) if leaf == "weight" else (lambda: weights[name])

    return Lazy({name: reader(name) for name in _merged_names(weights)})


def _merged_matrix(weights: Weights, path: str, scaling: float) -> np.ndarray:
    if f"{path}.codes" in weights:
        parts = {leaf: weights[f"{path}.{leaf}"] for leaf in ("codes", *SCALES) if f"{path}.{leaf}" in weights}
        matrix = BY_CODES[str(parts["codes"].dtype)].dequantise(**parts)
    else:
        matrix = weights[f"{path}.weight"]
    if f"{path}.lora_a" not in weights:
        return matrix
    a, b = (weights[f"{path}.{leaf}"].astype(np.float64) for leaf in ADAPTER)
    return (matrix + scaling * (a @ b)).astype(matrix.dtype)


def _merged_names(weights: Weights) -> Iterator[str]:
    for name in weights:
        path, _, leaf = name.rpartition(".")
        if leaf == "codes":
            yield f"{path}.weight"
        elif leaf not in ADAPTER and not (leaf in SCALES and f"{path}.codes" in weights):
            yield name
