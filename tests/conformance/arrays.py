"""Makes the layers and the random arrays for tests of single layers."""

import numpy as np

from slm_core.config import Attention, Model
from slm_core.config.layers import LayerSpec, resolve

TOLERANCE = dict(rtol=1e-12, atol=1e-13)


def layer(**sections) -> LayerSpec:
    """Resolves a layer, 8 wide, of the given sections."""
    return resolve(Model(d_model=8, **{"attention": Attention(n_heads=2)} | sections))


def numbers(*shapes):
    """Returns an array of each shape."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in shapes]


def named(**shapes) -> dict[str, np.ndarray]:
    """Returns weights by name; "__" stands for a dot."""
    return dict(zip((name.replace("__", ".") for name in shapes), numbers(*shapes.values()), strict=True))
