"""Initial weights, decided once for both twins.

A twin declares each parameter with a `Spec`; its values come from here, keyed by (seed, canonical name), so they are
bitwise the same in both twins and in any order of construction. The canonical name is the attribute path joined by dots
("layers.0.attention.q_proj.weight"), and shapes are the same in both twins: a weight matrix is [in, out].
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from slm_core.config import Model
from slm_core.model.mup import hidden_std


@dataclass(frozen=True)
class Spec:
    """What a parameter is: its role decides its weight decay, `std` or `constant` its initial value."""

    role: str  # a key of `slm_core.model.parameter_groups.DECAYS`
    std: float = 0.0  # standard deviation of a normal; 0: constant
    constant: float = 0.0
    step: float = 0.0  # of role "balance": what an update adds or takes away
    dtype: str = ""  # of what is stored, "uint8" or "int8"; "": precision.params


NORM_WEIGHT = {"scale": Spec("norm", constant=1.0), "one_plus": Spec("norm")}
BIAS = Spec("bias")
SCALAR = Spec("scalar")
HALF = Spec("scalar", constant=0.5)


def matrix(model: Model) -> Spec:
    """A weight matrix that reads the residual stream."""
    return Spec("matrix", std=hidden_std(model))


def residual_matrix(model: Model) -> Spec:
    """A weight matrix that writes into the residual stream, which 2 n_layers of them sum into (GPT-2, section 2.3)."""
    depth = 2 * model.n_layers if model.depth_scaled_init else 1
    return Spec("matrix", std=hidden_std(model) / depth**0.5)


def head(model: Model) -> Spec:
    """The matrix from the final hidden state to the logits."""
    return Spec("head", std=model.init_std)


def embedding(model: Model) -> Spec:
    """A table of vectors, one a token or position."""
    return Spec("embedding", std=model.init_std)


def initial_value(name: str, shape: tuple[int, ...], spec: Spec, seed: int) -> np.ndarray:
    """Returns the initial value of one parameter, float64; a twin casts it to its own dtype.

    Philox (Salmon 2011) is counter-based: the key alone, a hash of (seed, name), fixes every number.
    """
    if spec.std == 0:
        return np.full(shape, spec.constant)
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return generator.standard_normal(shape) * spec.std
