"""Initial values: what is constant, and what the depth changes. `tests/outside` has their distribution."""

import numpy as np
import pytest

from slm_core.config import Model
from slm_core.config.layers import resolve
from slm_core.model.initialization import HALF, NORM_WEIGHT, Spec, initial_value, residual_matrix


@pytest.mark.parametrize(("spec", "value"), [(HALF, 0.5), (NORM_WEIGHT["scale"], 1.0), (NORM_WEIGHT["one_plus"], 0.0)])
def test_constants_stay(spec, value):
    np.testing.assert_array_equal(initial_value("w", (3, 2), spec, 0), np.full((3, 2), value), strict=True)


def test_a_standard_deviation_of_one_is_drawn():
    assert 0.9 < initial_value("w", (100, 100), Spec("matrix", std=1.0), 0).std() < 1.1


@pytest.mark.parametrize(("scaled", "divisor"), [(False, 1.0), (True, 6.0)])
def test_the_depth_divides_what_writes_into_the_stream(scaled, divisor):
    model = resolve(Model(n_layers=18, depth_scaled_init=scaled, init_std=0.03))
    assert residual_matrix(model).std == pytest.approx(0.03 / divisor, rel=1e-15)
