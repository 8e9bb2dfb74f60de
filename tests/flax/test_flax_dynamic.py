"""The Flax quantiser against the specification, compiled."""

import functools

import dynamic_checks as checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slm_flax.quantization.blockwise import Quantiser


@pytest.fixture(autouse=True)
def wide():
    jax.config.update("jax_enable_x64", True)


@functools.lru_cache
def compiled(block: int, code: bytes):
    quantiser = Quantiser(np.frombuffer(code, np.float32), block)

    @jax.jit
    def both(x):
        codes, scales = quantiser.quantise(x)
        return codes, scales, quantiser.dequantise(codes, scales)

    return both


def run(x, block, code):
    return [np.asarray(array) for array in compiled(block, code.tobytes())(jnp.asarray(x))]


def test_bits():
    checks.check_bits(run)
