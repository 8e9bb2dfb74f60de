"""Initial weights and how the optimizer treats each parameter, decided once for both twins.

A twin declares each parameter with a `Spec`; its values come from here, keyed by (seed, canonical name), so they are
bitwise the same in both twins and in any order of construction. The canonical name is the attribute path joined by dots
("layers.0.attention.q_proj.weight"), and shapes are the same in both twins: a weight matrix is [in, out].
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from slm_core.config import Config, Model, Optim


@dataclass(frozen=True)
class Spec:
    """What a parameter is: its role decides its weight decay, `std` or `constant` its initial value."""

    role: str  # a key of DECAYS
    std: float = 0.0  # standard deviation of a normal; 0: constant
    constant: float = 0.0
    step: float = 0.0  # of role "balance": what an update adds or takes away
    dtype: str = ""  # of what is stored, "uint8" or "int8"; "": precision.params


DECAYS = {
    "matrix": lambda optim: True,  # between activations inside the model
    "head": lambda optim: True,  # from the last activation to the logits
    "embedding": lambda optim: optim.decay_embeddings,
    "norm": lambda optim: optim.decay_norms,
    "bias": lambda optim: optim.decay_biases,
    "scalar": lambda optim: False,  # a few learned numbers: sinks, mixing weights, biases by distance
    "balance": lambda optim: False,  # a mixture's routing bias, which no optimizer sees
    "frozen": lambda optim: False,  # held as it is: no gradient, no optimizer
}

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


def hidden_std(model: Model) -> float:
    """Standard deviation of a matrix inside the model: init_std, or under muP init_std at the base width, falling with
    the square root of the width (Yang et al. 2022, https://arxiv.org/abs/2203.03466, table 8)."""
    base = model.mup_base_width
    return model.init_std * (base / model.d_model) ** 0.5 if base else model.init_std


def head(model: Model) -> Spec:
    """The matrix from the final hidden state to the logits."""
    return Spec("head", std=model.init_std)


def embedding(model: Model) -> Spec:
    """A table of vectors, one a token or position."""
    return Spec("embedding", std=model.init_std)


def logit_factor(model: Model) -> float:
    """What logits are multiplied by: under muP, also by the base width over the width (Yang et al. 2022, table 8)."""
    base = model.mup_base_width
    return model.logit_multiplier * (base / model.d_model if base else 1.0)


def initial_value(name: str, shape: tuple[int, ...], spec: Spec, seed: int) -> np.ndarray:
    """Returns the initial value of one parameter, float64; a twin casts it to its own dtype.

    Philox (Salmon 2011) is counter-based: the key alone, a hash of (seed, name), fixes every number.
    """
    if spec.std == 0:
        return np.full(shape, spec.constant)
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    return generator.standard_normal(shape) * spec.std


@dataclass(frozen=True)
class Treatment:
    """How an optimizer treats a parameter: it moves with lr * rate and decays by p <- p (1 - lr * decay)."""

    role: str
    rate: float = 1.0
    decay: float = 0.0


def treatments(specs: Mapping[str, Spec], config: Config) -> dict[str, Treatment]:
    """Returns {name: treatment} of the parameters that the optimizer trains: none of role "balance" or "frozen"."""
    decay = config.optim.weight_decay
    return {
        name: Treatment(spec.role, learning_rate_factor(spec, config), decay if decays(spec, config.optim) else 0.0)
        for name, spec in specs.items()
        if spec.role not in ("balance", "frozen")
    }


def balance_steps(specs: Mapping[str, Spec]) -> dict[str, float]:
    """Returns {name: step} of the parameters of role "balance"."""
    return {name: spec.step for name, spec in specs.items() if spec.role == "balance"}


MUP_RATES = {
    "adamw": {"matrix": 1.0},
    "adamw8bit": {"matrix": 1.0},
    "lion": {"matrix": 1.0},
    "schedule_free": {"matrix": 1.0},
    "adafactor": {"matrix": 0.5},  # its updates already follow the root mean square of a matrix, 1 / sqrt(width)
    "sgd": {role: -1.0 for role in DECAYS if role != "matrix"},
    "muon": {"matrix": 0.5},  # an update's largest singular value grows with sqrt(width)
    "muon, spectral": {},
}
"""{optimizer: {role: power of base width / width that the learning rate is multiplied by}}, 0 where absent.

Yang et al. 2022 (https://arxiv.org/abs/2203.03466), table 8, for Adam and SGD. The others by its rule that an update
moves every activation by as much at any width.
"""


def learning_rate_factor(spec: Spec, config: Config) -> float:
    """Returns what multiplies the learning rate of a parameter: 1 unless muP scales it."""
    base, optim = config.model.mup_base_width, config.optim
    if not base:
        return 1.0
    kind = "muon, spectral" if optim.kind == "muon" and optim.muon_scale == "spectral" else optim.kind
    return (base / config.model.d_model) ** MUP_RATES[kind].get(spec.role, 0.0)


def decays(spec: Spec, optim: Optim) -> bool:
    """Returns whether weight decay applies to a parameter."""
    return DECAYS[spec.role](optim)
