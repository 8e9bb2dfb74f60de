"""How far apart two arrays are."""

import numpy as np


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """Returns max |a - b|; infinite where shapes differ or a value is not finite on one side only or not equal."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return np.inf
    differing = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    return _worst(np.abs(a[differing] - b[differing]))


def of_order_one(a: np.ndarray, b: np.ndarray) -> float:
    """Returns max |a - b| / max(1, root mean square of b)."""
    return largest(a, b) / max(1.0, float(np.sqrt(np.mean(np.square(b, dtype=np.float64)))))


def relative(a: np.ndarray, b: np.ndarray, floor: float = 0.0) -> float:
    """Returns |a - b| / max(|b|, floor) in L2; 0 for equal arrays, infinite for other shapes or no finite value."""
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
