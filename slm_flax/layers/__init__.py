"""Registers the components: one line each. The keys are the values of the schema's `kind` fields; each has a twin."""

from slm_flax.layers.alibi import ALiBi
from slm_flax.layers.clipped_swiglu import ClippedSwigluMLP
from slm_flax.layers.delta import DeltaNet
from slm_flax.layers.differential import DifferentialAttention
from slm_flax.layers.dot_product import dot_product
from slm_flax.layers.dyt import DynamicTanh
from slm_flax.layers.flash import flash
from slm_flax.layers.fused import fused
from slm_flax.layers.gated_delta import GatedDeltaNet
from slm_flax.layers.geglu import GegluMLP
from slm_flax.layers.gelu import GeluMLP
from slm_flax.layers.gla import GatedLinearAttention
from slm_flax.layers.gqa import GroupedQueryAttention
from slm_flax.layers.kda import KimiDeltaAttention
from slm_flax.layers.layernorm import LayerNorm
from slm_flax.layers.learned import LearnedPosition
from slm_flax.layers.linear_attention import LinearAttention
from slm_flax.layers.mamba2 import Mamba2
from slm_flax.layers.mla import LatentAttention
from slm_flax.layers.moe import MixtureOfExperts
from slm_flax.layers.none import NoPosition, no_mlp
from slm_flax.layers.relu import ReluMLP
from slm_flax.layers.relu2 import Relu2MLP
from slm_flax.layers.retention import Retention
from slm_flax.layers.rmsnorm import RMSNorm
from slm_flax.layers.rope import RoPE
from slm_flax.layers.sinusoidal import SinusoidalPosition
from slm_flax.layers.swiglu import SwigluMLP
from slm_flax.layers.t5 import T5Bias

ATTENTION = {
    "gqa": GroupedQueryAttention,
    "mla": LatentAttention,
    "differential": DifferentialAttention,
}
MIXER = {
    "linear": LinearAttention,
    "retention": Retention,
    "gla": GatedLinearAttention,
    "delta": DeltaNet,
    "gated_delta": GatedDeltaNet,
    "kda": KimiDeltaAttention,
    "mamba2": Mamba2,
}
KERNEL = {
    "dot_product": dot_product,
    "flash": flash,
    "fused": fused,
}
POSITION = {
    "rope": RoPE,
    "alibi": ALiBi,
    "t5": T5Bias,
    "learned": LearnedPosition,
    "sinusoidal": SinusoidalPosition,
    "none": NoPosition,
}
NORM = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
    "dyt": DynamicTanh,
}
MLP = {
    "gelu": GeluMLP,
    "relu": ReluMLP,
    "relu2": Relu2MLP,
    "swiglu": SwigluMLP,
    "geglu": GegluMLP,
    "clipped_swiglu": ClippedSwigluMLP,
    "moe": MixtureOfExperts,
    "none": no_mlp,
}
