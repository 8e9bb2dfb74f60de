"""The Flax layers against the papers' formulas, in float64."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import layer_checks as checks
import numpy as np
import pytest
from flax import nnx

from slm_core.config import Config
from slm_flax import layers, params
from slm_flax.layers.dropout import keep_mask
from slm_flax.layers.placement import PLACEMENT
from slm_flax.loss import loss_sums, sums, token_losses
from slm_flax.model import Transformer, position_at


@pytest.fixture(autouse=True)
def wide():
    jax.config.update("jax_enable_x64", True)


def array(value):
    return jnp.asarray(value) if isinstance(value, np.ndarray) else value


class Twin:
    float64 = jnp.dtype("float64")
    placements = PLACEMENT
    module = nnx.Module
    array = staticmethod(array)

    def kernel(self, name):
        def run(*arrays, **options):
            options = {key: array(value) for key, value in options.items()}
            return np.asarray(layers.KERNEL[name](*map(array, arrays), **options))

        return run

    def apply(self, registry, kind, arguments, weights, *inputs):
        y = self._filled(getattr(layers, registry)[kind](*arguments), weights)(*map(array, inputs))
        return np.asarray(y[0] if registry == "MLP" else y)  # beside its output, an MLP has an auxiliary loss

    def hidden(self, config, weights, tokens):
        model = Transformer(config, len(weights["embed.weight"]), self.float64)
        return np.asarray(self._filled(model, weights)(array(tokens))[0])

    def attention(self, model, index, weights, x, first_values):
        position = partial(position_at, layer=model, context=9)
        module = layers.ATTENTION[model.attention.kind](model, index, layers.KERNEL["dot_product"], position)
        found = self._filled(module, weights)(array(x), 0, None, array(first_values))
        return [np.asarray(y) for y in found]

    def keep_mask(self, key, shape, first_row, rate):
        return np.asarray(keep_mask(jnp.uint32(key), shape, jnp.uint32(first_row), rate))

    def token_losses(self, logits, targets):
        return np.asarray(token_losses(array(logits), array(targets)))

    def losses(self, logits, targets, z_loss):
        return [float(value) for value in sums(array(logits), array(targets), z_loss)]

    def loss_and_gradients(self, config, vocab, hidden, targets, chunk):
        model = Transformer(Config(model=config), vocab, self.float64)
        values = params.initialise(model, 0, self.float64)

        def losses(hidden, head):
            bound = params.bind(model, values | {"head.weight": head})
            found = loss_sums(bound, hidden, 0.5, array(targets), chunk)
            return found.objective, found.tokens

        of_both = jax.value_and_grad(losses, (0, 1), has_aux=True)
        (objective, tokens), gradients = of_both(array(hidden), values["head.weight"])
        return [np.asarray(x) for x in (tokens, objective, *gradients)]

    def _filled(self, module, weights):
        return params.bind(module, {name: array(value) for name, value in weights.items()})


TWIN = Twin()


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_layers(check):
    check(TWIN)


@pytest.mark.parametrize("name", layers.KERNEL)
@pytest.mark.parametrize("case", checks.KERNEL_CASES, ids=str)
def test_kernel(name, case):
    checks.check_kernel(TWIN.kernel(name), **case)


@pytest.mark.parametrize("name", layers.KERNEL)
def test_kernel_with_everything(name):
    checks.check_kernel_with_everything(TWIN.kernel(name))


@pytest.mark.parametrize("name", layers.KERNEL)
def test_kernel_hides_the_unwritten_cache(name):
    checks.check_unwritten_cache_is_hidden(TWIN.kernel(name))


@pytest.mark.parametrize("case", [case for case in checks.KERNEL_CASES if not case["softcap"]], ids=str)
def test_fused_is_dot_product_in_float32(case):
    """Where JAX's own function computes what `fused` does not in blocks; float64 never gets there."""
    rng = np.random.default_rng(0)
    time, keys = 6, case["start"] + 6
    q = jnp.asarray(rng.standard_normal((2, time, 4, 5)), jnp.float32)
    k, v = (jnp.asarray(rng.standard_normal((2, keys, case["kv_heads"], 5)), jnp.float32) for _ in "kv")
    options = dict(start=case["start"], window=case["window"], scale=0.7, softcap=0.0)
    found, expected = layers.KERNEL["fused"](q, k, v, **options), layers.KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("time", [8, 11])
def test_fused_in_blocks_is_dot_product(monkeypatch, time, window):
    """Several blocks of queries, the last one short, with windows shorter and longer than a block."""
    monkeypatch.setattr(sys.modules["slm_flax.layers.fused"], "SMALLEST_BLOCK", 2)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, time, heads, 5))) for heads in (4, 2, 2))
    options = dict(start=0, window=window, scale=0.7, softcap=0.0)
    expected = layers.KERNEL["dot_product"](q, k, v, **options)
    np.testing.assert_allclose(layers.KERNEL["fused"](q, k, v, **options), expected, **checks.TOLERANCE)
    single = (x.astype(jnp.float32) for x in (q, k, v))
    np.testing.assert_allclose(layers.KERNEL["fused"](*single, **options), expected, rtol=1e-5, atol=1e-5)
