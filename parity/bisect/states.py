"""Compares exported states, and gradients by name."""

from collections.abc import Callable, Mapping

import numpy as np

from parity.bisect.divergence import Comparison
from parity.tolerances import GRADIENT_FLOOR

Arrays = Mapping[str, np.ndarray]


def module_of(name: str) -> str:
    """Returns the owner of an entry of a state: a module's path, "optimizer" or "scaler"."""
    part, _, rest = name.partition("/")
    return rest.rpartition(".")[0] or "model" if part == "params" else OWNERS[part]


ORDER = ("scaler", "optim", "params")
OWNERS = {"optim": "optimizer", "scaler": "scaler"}


def exact_comparisons(left: Arrays, right: Arrays, owner: Callable[[str], str]) -> list[Comparison]:
    """Returns the comparisons of two states that should be the same bits."""
    return [
        Comparison(owner(name), name, _same_dtype(left.get(name), right.get(name)), right.get(name), tolerance=0.0)
        for name in [*right, *(left.keys() - right.keys())]
    ]


def _same_dtype(value: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return value if value is None or other is None or value.dtype == other.dtype else None


def close_comparisons(
    left: Arrays, right: Arrays, owner: Callable[[str], str], tolerance: float | None
) -> list[Comparison]:
    """Returns the comparisons of two states after updates.

    An entry is measured against its part of the state; a count or a scale must be equal.

    The scaler comes first and parameters last: those follow from the rest.
    """
    names = sorted(left.keys() | right.keys(), key=lambda name: (ORDER.index(name.partition("/")[0]), name))
    norms: dict[str, float] = {}
    for name, value in right.items():
        if np.ndim(value):
            norms[_part(name)] = float(np.hypot(norms.get(_part(name), 0.0), np.linalg.norm(value)))
    comparisons = []
    for name in names:
        counted = name.startswith("scaler/") or np.issubdtype(
            (right if name in right else left)[name].dtype, np.integer
        )
        floor = GRADIENT_FLOOR * norms.get(_part(name), 0.0)
        comparisons.append(
            Comparison(owner(name), name, left.get(name), right.get(name), floor, 0.0 if counted else tolerance)
        )
    return comparisons


def _part(name: str) -> str:
    """Returns the part of an entry, such as "params", "optim/m" or "scaler/scale": its entries are of one magnitude."""
    part, _, rest = name.partition("/")
    return f"{part}/{rest.partition('/')[0]}" if part != "params" else part


def gradient_comparisons(left: Arrays, right: Arrays, module: str, how: str) -> list[Comparison]:
    """Returns the comparisons of gradients by a parameter's name."""
    floor = GRADIENT_FLOOR * float(np.linalg.norm([np.linalg.norm(value) for value in right.values()]))
    return [
        Comparison(module, f"gradient of {name}, {how}", left.get(name), value, floor) for name, value in right.items()
    ]
