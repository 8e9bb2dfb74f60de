"""Dtypes by name, the wide dtype of each, and products that are wide."""

import jax.numpy as jnp
import numpy as np
from jax import Array

DTYPES = {
    "float64": jnp.dtype("float64"),
    "float32": jnp.dtype("float32"),
    "bfloat16": jnp.dtype("bfloat16"),
    "float16": jnp.dtype("float16"),
}


def wide(dtype: np.dtype) -> np.dtype:
    """Picks the dtype of softmax, norm statistics and the loss: float32, or float64 if that is the compute dtype."""
    return jnp.promote_types(dtype, jnp.float32)


def wide_product(a: Array, b: Array) -> Array:
    """Multiplies matrices that may be in 16 bits, [..., rows, n] and [..., n, columns]. The product is wide."""
    return a @ b if a.dtype == wide(a.dtype) else jnp.matmul(a, b, preferred_element_type=wide(a.dtype))
