"""Widths that follow from a resolved layer."""

from slm_core.config.layers import AttentionSpec, LayerSpec


def query_width(attention: AttentionSpec) -> int:
    """Returns the width of one query, which is the number of products in a score."""
    return attention.head_dim + attention.rope_dim if attention.kind == "mla" else attention.head_dim


def rotated(layer: LayerSpec) -> int:
    """Counts the features of a head that turn with the position: the first `fraction` of those that may."""
    attention = layer.attention
    return round(layer.position.fraction * (attention.rope_dim if attention.kind == "mla" else attention.head_dim))


def value_shape(attention: AttentionSpec) -> tuple[int, int]:
    """Returns (value heads, width of one)."""
    shapes = {
        "mla": (attention.n_heads, attention.v_dim),
        "differential": (attention.n_kv_heads, 2 * attention.head_dim),
    }
    return shapes.get(attention.kind, (attention.n_kv_heads, attention.head_dim))
