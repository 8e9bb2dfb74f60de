"""Frozen weight matrices in few bits: the two formats, and weights on their way in and out of them.

int8 (vector-wise, Dettmers et al. 2022, https://arxiv.org/abs/2208.07339), one scale an output channel:

    scale[o] = max_i |w[i, o]| / 127,  code = round(w / scale), half to even,  w = code scale

nf4 (QLoRA, Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): the flattened matrix in blocks of 64, the scale of
each the largest |w| in it, a code the nearest of 16 quantiles of the normal distribution. The scales are themselves in
8 bits (`slm_core.quantization.blockwise`), their mean taken away, in groups of 256:

    w = NF4[code] scale,  scale = (DYNAMIC[scale_code] + scale_offset) scale_step,  scale_offset = mean / scale_step

Quantising is done here alone, for both twins. Each twin dequantises, in the dtype of the scales, and to the same bits:
no product is followed by a sum, which a compiler may contract into one rounding. The offset is divided by the step for
that reason.
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

BLOCK, GROUP = 64, 256  # of nf4: weights a scale, scales a step
SMALLEST = 2.0**-64
"""A largest magnitude below this counts as 0: XLA rounds the subnormal products to 0, NumPy does not."""

SCALES = ("scale", "scale_codes", "scale_offset", "scale_step")
ADAPTER = ("lora_a", "lora_b")
"""Leaves of names: beside "codes", and of an adapter."""

Shape = tuple[int, ...]
Declared = Mapping[str, tuple[Shape, Spec]]
Parts = dict[str, np.ndarray]
"""{leaf of a parameter's name: array} of one matrix."""


def normal_quantiles() -> np.ndarray:
    """Returns the 16 values of NF4, float32, rising from -1 to 1, one of them 0.

    Quantiles equally far apart in probability, nine from 0 upwards and eight from 0 downwards, the two zeros one. The
    outermost leave out half a point's share of the probability, the mean of what that is with 15 and with 16 points.
    """
    furthest = (29 / 30 + 31 / 32) / 2
    quantiles = lambda count: [NormalDist().inv_cdf(p) for p in np.linspace(0.5, furthest, count)]  # noqa: E731
    values = np.array([-value for value in quantiles(8)[:0:-1]] + quantiles(9))
    return (values / values[-1]).astype(np.float32)


NF4 = normal_quantiles()
NF4_PAIRS = np.stack(np.meshgrid(NF4, NF4, indexing="ij"), axis=-1).reshape(256, 2)
"""The two weights of a byte: that of its upper four bits first."""
DYNAMIC = signed_code()


def int8_parts(matrix: np.ndarray) -> Parts:
    """Returns a matrix [in, out] as int8."""
    scale = _magnitude(np.abs(matrix).max(axis=0)) / 127
    codes = np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)
    return {"codes": np.rint(codes).astype(np.int8), "scale": scale}


def int8_matrix(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Returns the matrix [in, out], in the dtype of the scale."""
    return codes.astype(scale.dtype) * scale


def nf4_parts(matrix: np.ndarray) -> Parts:
    """Returns a matrix [in, out] as nf4; `out` must be even. Of two codes as near the lower is taken."""
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
    """Returns the matrix [in, out], in the dtype of the steps."""
    dtype, count = scale_step.dtype, len(scale_codes)
    offset, step = (np.repeat(part, GROUP)[:count] for part in (scale_offset, scale_step))
    scale = (DYNAMIC.astype(dtype)[scale_codes] + offset) * step
    levels = NF4_PAIRS.astype(dtype)[padded(codes.reshape(-1), BLOCK // 2)].reshape(-1, BLOCK)
    return (levels * scale[:, None]).reshape(-1)[: 2 * codes.size].reshape(len(codes), -1)


def padded(values: np.ndarray, block: int) -> np.ndarray:
    """Returns a vector with zeros behind it, up to whole blocks."""
    return np.pad(values, (0, -len(values) % block))


def _magnitude(largest: np.ndarray) -> np.ndarray:
    return np.where(largest < SMALLEST, largest.dtype.type(0), largest)


class Format(NamedTuple):
    """How a matrix is stored in few bits.

    Args:
      quantise: matrix [in, out] -> parts, all of its dtype but the codes.
      dequantise: parts -> matrix.
      declared: (shape, spec) of the matrix -> {leaf: (shape, spec)} of its parts.
      shape: of the codes -> of the matrix.
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
    """Returns the spec of codes, which keeps what the initial values of their matrix are."""
    return dataclasses.replace(spec, role="frozen", dtype=dtype)


FORMATS = {
    "int8": Format(int8_parts, int8_matrix, _int8_declared, lambda shape: shape),
    "nf4": Format(nf4_parts, nf4_matrix, _nf4_declared, lambda shape: (shape[0], 2 * shape[1])),
}
BY_CODES = {"int8": FORMATS["int8"], "uint8": FORMATS["nf4"]}
"""{dtype of the codes: format}."""


def fits(stored_as: str, shape: Shape) -> bool:
    """Returns whether a matrix [in, out] can be stored as "int8" or "nf4": nf4 packs two outputs into a byte."""
    return stored_as == "int8" or (stored_as == "nf4" and shape[1] % 2 == 0)


def dequantised(declared: Declared) -> Declared:
    """Returns the declared parameters with each quantised matrix as a floating `weight`, in the order declared."""
    found = {}
    for name, (shape, spec) in declared.items():
        path, _, leaf = name.rpartition(".")
        if leaf == "codes":
            found[f"{path}.weight"] = BY_CODES[spec.dtype].shape(shape), dataclasses.replace(spec, dtype="")
        elif f"{path}.codes" not in declared or leaf not in SCALES:
            found[name] = shape, spec
    return found


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
    """Returns the weights of a model without adapters and without quantised matrices, by canonical name.

    A quantised matrix is dequantised, and an adapter is added to its matrix: W + (alpha / rank) A B. Each array is
    computed when it is asked for.

    Args:
      weights: by canonical name, without "params/".
      config: of the run that they are of.
    """
    finetune = config.finetune

    def read(path: str) -> np.ndarray:
        if f"{path}.codes" in weights:
            leaves = [leaf for leaf in ("codes", *SCALES) if f"{path}.{leaf}" in weights]
            parts = {leaf: weights[f"{path}.{leaf}"] for leaf in leaves}
            matrix = BY_CODES[str(parts["codes"].dtype)].dequantise(**parts)
        else:
            matrix = weights[f"{path}.weight"]
        if f"{path}.lora_a" not in weights:
            return matrix
        a, b = (weights[f"{path}.{leaf}"].astype(np.float64) for leaf in ADAPTER)
        return (matrix + finetune.alpha / finetune.rank * (a @ b)).astype(matrix.dtype)

    def reader(name: str) -> Callable[[], np.ndarray]:
        path, _, leaf = name.rpartition(".")
        return (lambda: read(path)) if leaf == "weight" else (lambda: weights[name])

    names = []
    for name in weights:
        path, _, leaf = name.rpartition(".")
        if leaf == "codes":
            names.append(f"{path}.weight")
        elif leaf not in ADAPTER and not (leaf in SCALES and f"{path}.codes" in weights):
            names.append(name)
    return Lazy({name: reader(name) for name in names})
