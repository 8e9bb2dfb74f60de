"""Dtypes by name, and the wide dtype of each."""

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "float64": jnp.dtype("float64"),
    "float32": jnp.dtype("float32"),
    "bfloat16": jnp.dtype("bfloat16"),
    "float16": jnp.dtype("float16"),
}


def wide(dtype: np.dtype) -> np.dtype:
    """Picks the dtype of softmax, norm statistics and the loss: float32, or float64 if that is the compute dtype."""
    return jnp.promote_types(dtype, jnp.float32)
