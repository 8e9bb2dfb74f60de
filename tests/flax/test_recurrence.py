"""The recurrence on the threads of a run: XLA's own triangular solve waited for ever there."""

import subprocess
import sys

import pytest

REPEATED = """
import jax, jax.numpy as jnp, numpy as np
from slm_flax.layers.recurrence import recurrence

rng = np.random.default_rng(0)
q, k, v = (jnp.asarray(rng.standard_normal((8, 64, 4, 16)), jnp.float32) for _ in range(3))
k = k / jnp.linalg.norm(k, axis=-1, keepdims=True)
gradients = jax.jit(jax.grad(lambda q, k, v: recurrence(q, k / 2, v, erase=k, chunk=64)[0].sum(), (0, 1, 2)))
for _ in range(300):
    jax.block_until_ready(gradients(q, k, v))
"""


@pytest.mark.slow
def test_a_chunk_of_64_positions_ends_every_time():
    """In its own process, because a computation that waits for ever cannot be stopped otherwise."""
    assert subprocess.run([sys.executable, "-c", REPEATED], timeout=120, capture_output=True).returncode == 0
