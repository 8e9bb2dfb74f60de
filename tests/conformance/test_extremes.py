"""Extreme numbers in float32 and in half precisions, against the formula in float64: no overflow, no lost digits."""

import numpy as np
import pytest

from tests.conformance.arrays import numbers
from tests.conformance.kernel_cases import TIME, problem
from tests.conformance.test_moe import build, inputs, random_weights
from tests.reference import attention, moe
from tests.reference import layers as reference

TARGETS = np.array([0, 6, -1, 3, -1])
KERNELS = ("dot_product", "flash", "fused")
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


@pytest.mark.parametrize("size", [1e-30, 100.0, 1e4, 1e18])
def test_losses_of_logits_of_any_size_are_the_formula(twin, size):
    """exp(100) overflows float32: the largest logit has to be subtracted first."""
    logits = np.float32(size) * numbers((5, 7))[0].astype(np.float32)
    actual = twin.token_losses(logits, TARGETS)
    expected = reference.token_losses(logits.astype(np.float64), TARGETS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    tokens, _ = twin.losses(logits, TARGETS, 0.0)
    assert tokens == pytest.approx(expected.sum(), rel=1e-6)


@pytest.mark.parametrize("shift", [-1e4, 300.0, 1e4])
def test_a_shift_of_all_logits_changes_a_loss_by_its_rounding_alone(twin, shift):
    logits = np.round(8 * numbers((5, 7))[0]).astype(np.float32)  # whole numbers stay exact beside the shift
    expected = reference.token_losses(logits.astype(np.float64), TARGETS)
    actual = twin.token_losses(logits + np.float32(shift), TARGETS)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=2.0**-23 * abs(shift))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("scale", [100.0, 1e6])
def test_scores_of_any_size_are_the_formula(twin, name, scale):
    given, dy = problem(keys=TIME, dtype=np.float32)
    given["q"] = np.round(given["q"] * 8) / 8  # short binary numbers: products and sums of a score are exact
    given["k"] = np.round(given["k"] * 8) / 8
    y, gradients = twin.kernel_gradients(name, given, dy, scale=scale, start=0)
    wide = {key: value.astype(np.float64) for key, value in given.items()}
    expected, slopes = attention.attention(**wide, dy=dy.astype(np.float64), scale=scale, start=0)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    np.testing.assert_allclose(gradients["v"], slopes["v"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", EPSILON)
def test_scores_of_half_precisions_are_wide(twin, name, dtype):
    """A score of 60 in bfloat16 would be wrong by up to 0.125, and its weight by an eighth."""
    given, _ = problem(keys=TIME, dtype=np.float32)
    short = {key: np.round(value / EPSILON[dtype]) * EPSILON[dtype] for key, value in given.items()}
    given = {key: np.float32(4) * np.clip(value, -1, 1).astype(np.float32) for key, value in short.items()}
    y, _ = twin.kernel_in(dtype, name, given, start=0, scale=1.5)
    wide = {key: value.astype(np.float64) for key, value in given.items()}
    expected, _ = attention.attention(**wide, dy=np.zeros((*wide["q"].shape[:3], 6)), scale=1.5, start=0)
    np.testing.assert_allclose(y, expected, rtol=EPSILON[dtype], atol=4 * EPSILON[dtype])


def test_routers_of_any_size_choose_and_weigh_as_the_formula_does(twin):
    layer = build(experts=5, top_k=2, router_z_loss=0.0)
    weights, (x, dy) = random_weights(layer), inputs(layer, (2, 9))
    weights["router.weight"] = 1e4 * weights["router.weight"]
    y, auxiliary_loss, gradients = twin.mixture(layer, weights, x, dy)
    np.testing.assert_allclose(y, moe.layer(layer.mlp, weights, x), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(auxiliary_loss, moe.auxiliary_loss(layer.mlp, weights, x), rtol=1e-11)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
