"""The registries: one line a component. A kind is a value of the schema's `kind` field and has a twin in slm_torch."""

from slm_flax.layers.dot_product import dot_product
from slm_flax.layers.fused import fused
from slm_flax.layers.gelu import GeluMLP
from slm_flax.layers.gqa import GroupedQueryAttention
from slm_flax.layers.layernorm import LayerNorm
from slm_flax.layers.learned import LearnedPosition
from slm_flax.layers.none import NoPosition
from slm_flax.layers.rmsnorm import RMSNorm
from slm_flax.layers.rope import RoPE
from slm_flax.layers.sinusoidal import SinusoidalPosition
from slm_flax.layers.swiglu import SwigluMLP

ATTENTION = {
    "gqa": GroupedQueryAttention,
}
KERNEL = {
    "dot_product": dot_product,
    "fused": fused,
}
POSITION = {
    "rope": RoPE,
    "learned": LearnedPosition,
    "sinusoidal": SinusoidalPosition,
    "none": NoPosition,
}
NORM = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
}
MLP = {
    "gelu": GeluMLP,
    "swiglu": SwigluMLP,
}
