"""Draws initial weights, once for both twins.

A twin declares each parameter with a `Spec`. The values come from here, keyed by (seed, canonical name), so they are
bitwise the same in both twins and in any order of construction. The canonical name is the attribute path joined by dots
("layers.0.attention.q_proj.weight"). Shapes are the same in both twins: a weight matrix is [in, out].
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from slm_core.config import Model
from slm_core.model.mup import hidden_std


@dataclass(frozen=True)
class Spec:
    """Describes a parameter.

    Args:
      role: a key of `slm_core.model.parameter_groups.DECAYS`; it decides the parameter group.
      std: standard deviation of the initial values, which are normal; 0: they are `constant`.
      constant: the initial value if `std` is 0.
      between: the initial values are a `function` of numbers that are uniform between these two.
      function: a key of FUNCTIONS.
      step: how far an update moves a parameter of role "balance".
      dtype: "uint8" or "int8" for stored codes; "": precision.params.
    """

    role: str
    std: float = 0.0
    constant: float = 0.0
    step: float = 0.0
    dtype: str = ""
    between: tuple[float, float] | None = None
    function: str = "log"


NORM_WEIGHT = {"scale": Spec("norm", constant=1.0), "one_plus": Spec("norm")}
BIAS = Spec("bias")
HEAD_BIAS = Spec("head_bias")
SCALAR = Spec("scalar")
HALF = Spec("scalar", constant=0.5)
ONE = Spec("scalar", constant=1.0)
FUNCTIONS = {
    "log": np.log,
    "step": lambda log_step: np.log(np.expm1(np.exp(log_step))),  # its softplus is the step
}
LOG_RATE = Spec("scalar", between=(1.0, 16.0), function="log")
"""The rate at which a head forgets starts between 1 and 16 per unit of its step (Mamba-2, Gated DeltaNet)."""
STEP_BIAS = Spec("scalar", between=(math.log(1e-3), math.log(1e-1)), function="step")
"""A step starts between 0.001 and 0.1, uniformly in its logarithm (Mamba-2, Gated DeltaNet)."""


def matrix(model: Model) -> Spec:
    """Makes the spec of a weight matrix that reads the residual stream."""
    return Spec("matrix", std=hidden_std(model))


def residual_matrix(model: Model) -> Spec:
    """Makes the spec of a weight matrix that writes into the residual stream.

    With model.depth_scaled_init its standard deviation is divided by sqrt(2 n_layers), because the stream is the sum of
    2 n_layers such outputs (GPT-2, section 2.3); by sqrt(n_layers) in a layer without an MLP.
    """
    outputs = model.n_layers if model.mlp.kind == "none" else 2 * model.n_layers
    return Spec("matrix", std=hidden_std(model) / (outputs if model.depth_scaled_init else 1) ** 0.5)


def head(model: Model) -> Spec:
    """Makes the spec of the matrix from the final hidden state to the logits."""
    return Spec("head", std=model.init_std)


def embedding(model: Model) -> Spec:
    """Makes the spec of a table of vectors, one per token or position."""
    return Spec("embedding", std=model.init_std)


def initial_value(name: str, shape: tuple[int, ...], spec: Spec, seed: int) -> np.ndarray:
    """Draws the initial value of one parameter, float64; a twin casts it to its own dtype.

    Philox is a counter-based generator (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405). Its key, a hash
    of (seed, name), fixes every number.
    """
    if spec.std == 0 and spec.between is None:
        return np.full(shape, spec.constant)
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    if spec.between is not None:
        return FUNCTIONS[spec.function](generator.uniform(*spec.between, shape))
    return generator.standard_normal(shape) * spec.std
