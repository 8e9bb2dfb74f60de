"""Computes products with int8 and nf4 matrices; `slm_core.quantization.formats` specifies the formats, in NumPy."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int8, UInt8

from slm_core.quantization.formats import BLOCK, DYNAMIC, GROUP, NF4_PAIRS


def product(x: Float[Array, "rows in"], stored_as: str, parts: list[Array]) -> Float[Array, "rows out"]:
    """Computes x W. The backward pass dequantises W again: in between only its parts are kept.

    Args:
      x: rows.
      stored_as: the format of W, a key of MATRIX.
      parts: of W, in the order of the function's arguments.
    """
    return jax.checkpoint(lambda x, *parts: x @ MATRIX[stored_as](*parts).astype(x.dtype))(x, *parts)


def int8_matrix(codes: Int8[Array, "in out"], scale: Float[Array, "out"]) -> Float[Array, "in out"]:
    """Dequantises an int8 matrix, in the dtype of the scale."""
    return codes.astype(scale.dtype) * scale


def nf4_matrix(
    codes: UInt8[Array, "in pairs"],
    scale_codes: UInt8[Array, "blocks"],
    scale_offset: Float[Array, "groups"],
    scale_step: Float[Array, "groups"],
) -> Float[Array, "in out"]:
    """Dequantises an nf4 matrix, in the dtype of the steps."""
    dtype, count = scale_step.dtype, len(scale_codes)
    offset, step = (jnp.repeat(part, GROUP)[:count] for part in (scale_offset, scale_step))
    scale = (jnp.asarray(DYNAMIC, dtype)[scale_codes] + offset) * step
    flat = jnp.pad(codes.reshape(-1), (0, -codes.size % (BLOCK // 2)))
    levels = jnp.asarray(NF4_PAIRS, dtype)[flat].reshape(-1, BLOCK)
    return (levels * scale[:, None]).reshape(-1)[: 2 * codes.size].reshape(len(codes), -1)


MATRIX = {"int8": int8_matrix, "nf4": nf4_matrix}
"""{finetune.frozen: function that dequantises}: of the parts, in the order of their declaration."""
