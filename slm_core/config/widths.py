"""Widths that a resolved model's attention implies."""

from slm_core.config import Attention, Model


def query_width(attention: Attention) -> int:
    """Returns the width of one query, which its scores are sums over."""
    return attention.head_dim + attention.rope_dim if attention.kind == "mla" else attention.head_dim


def rotated(model: Model) -> int:
    """Returns how many features of a head turn with the position: the first `fraction` of those that may."""
    attention = model.attention
    return round(model.position.fraction * (attention.rope_dim if attention.kind == "mla" else attention.head_dim))


def value_shape(attention: Attention) -> tuple[int, int]:
    """Returns (value heads, width of one)."""
    shapes = {
        "gqa": (attention.n_kv_heads, attention.head_dim),
        "mla": (attention.n_heads, attention.v_dim),
        "differential": (attention.n_kv_heads, 2 * (attention.head_dim or 0)),
    }
    return shapes[attention.kind]
