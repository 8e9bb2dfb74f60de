"""Registers the components: one line each. The keys are the values of the schema's `kind` fields; each has a twin."""

from slm_torch.layers.alibi import ALiBi
from slm_torch.layers.clipped_swiglu import ClippedSwigluMLP
from slm_torch.layers.delta import DeltaNet
from slm_torch.layers.differential import DifferentialAttention
from slm_torch.layers.dot_product import dot_product
from slm_torch.layers.dyt import DynamicTanh
from slm_torch.layers.flash import flash
from slm_torch.layers.fused import fused
from slm_torch.layers.gated_delta import GatedDeltaNet
from slm_torch.layers.geglu import GegluMLP
from slm_torch.layers.gelu import GeluMLP
from slm_torch.layers.gla import GatedLinearAttention
from slm_torch.layers.gqa import GroupedQueryAttention
from slm_torch.layers.kda import KimiDeltaAttention
from slm_torch.layers.layernorm import LayerNorm
from slm_torch.layers.learned import LearnedPosition
from slm_torch.layers.linear_attention import LinearAttention
from slm_torch.layers.mamba2 import Mamba2
from slm_torch.layers.mla import LatentAttention
from slm_torch.layers.moe import MixtureOfExperts
from slm_torch.layers.none import NoPosition, no_mlp
from slm_torch.layers.relu import ReluMLP
from slm_torch.layers.relu2 import Relu2MLP
from slm_torch.layers.retention import Retention
from slm_torch.layers.rmsnorm import RMSNorm
from slm_torch.layers.rope import RoPE
from slm_torch.layers.sinusoidal import SinusoidalPosition
from slm_torch.layers.swiglu import SwigluMLP
from slm_torch.layers.t5 import T5Bias

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
