"""The registries: one line a component. A kind is a value of the schema's `kind` field and has a twin in slm_flax."""

from slm_torch.layers.dot_product import dot_product
from slm_torch.layers.fused import fused
from slm_torch.layers.gelu import GeluMLP
from slm_torch.layers.gqa import GroupedQueryAttention
from slm_torch.layers.layernorm import LayerNorm
from slm_torch.layers.learned import LearnedPosition
from slm_torch.layers.none import NoPosition
from slm_torch.layers.rmsnorm import RMSNorm
from slm_torch.layers.rope import RoPE
from slm_torch.layers.sinusoidal import SinusoidalPosition
from slm_torch.layers.swiglu import SwigluMLP

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
