"""Clipping by the global norm of the gradients (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063)."""


def clip_factor(norm: float, limit: float) -> float:
    """Returns what scales gradients of global norm `norm` down to at most `limit` (0: no limit)."""
    return limit / norm if limit and norm > limit else 1.0
