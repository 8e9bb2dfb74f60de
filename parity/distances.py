"""Measures how far apart two arrays are."""

import numpy as np
from numpy.typing import ArrayLike


def largest(a: ArrayLike, b: ArrayLike) -> float:
    """Returns max |a - b|.

    It is infinite for arrays of other shapes, and if a value that is not finite is not the same in both.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return np.inf
    differing = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    return _worst(np.abs(a[differing] - b[differing]))


def of_order_one(a: ArrayLike, b: ArrayLike) -> float:
    """Returns max |a - b| / max(1, root mean square of b)."""
    return largest(a, b) / max(1.0, float(np.sqrt(np.mean(np.square(b, dtype=np.float64)))))


def relative(a: ArrayLike, b: ArrayLike, floor: float = 0.0) -> float:
    """Returns |a - b| / max(|b|, floor), by L2 norms.

    It is 0 for equal arrays, and infinite for arrays of other shapes or with values that are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return np.inf
    distance = np.linalg.norm(a - b)
    if distance == 0:
        return 0.0
    scale = max(float(np.linalg.norm(b)), floor)
    return _worst(np.array([distance / scale if scale else np.inf]))


def _worst(differences: np.ndarray) -> float:
    if differences.size == 0:
        return 0.0
    return float(differences.max()) if np.isfinite(differences).all() else np.inf
