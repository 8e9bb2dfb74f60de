"""Attention: the kernels of PyTorch, and layers of Hugging Face transformers."""

import numpy as np
import torch
from transformers import DiffLlamaConfig, Qwen3NextConfig
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention

from slm_core.config import Attention, Norm, Position
from tests.conformance.arrays import layer, named, numbers
from tests.conformance.kernel_cases import problem
from tests.outside.formula import Formula

FLOAT32 = "its softmax is float32"
TIME, TINY = 5, 1e-20
"""Tokens of a case; an epsilon that is lost beside 1, so that forms which place it otherwise agree."""


# --- kernels

INPUTS, _ = problem(keys=TIME)
WITH_BIAS, _ = problem(keys=TIME, bias=True)
DISTANCE = np.arange(TIME)[:, None] - np.arange(TIME)


def _sdpa(inputs: dict, seen: np.ndarray) -> np.ndarray:
    q, k, v = (torch.from_numpy(inputs[name]).transpose(1, 2) for name in "qkv")
    mask = np.where(seen, 0.0, -np.inf)
    if "bias" in inputs:
        mask = mask + inputs["bias"][:, np.maximum(DISTANCE, 0)]
    function = torch.nn.functional.scaled_dot_product_attention
    return function(q, k, v, torch.from_numpy(mask), scale=0.7, enable_gqa=True).transpose(1, 2)


def _kernels(kind: str) -> list[Formula]:
    causal, source = DISTANCE >= 0, "torch, scaled_dot_product_attention"
    call = lambda twin, inputs, **options: twin.kernel(kind, **inputs, start=0, keys_start=0, scale=0.7, **options)  # noqa: E731
    about = f"attention.kernel={kind}"
    return [
        Formula(about, source, lambda t: call(t, INPUTS), lambda: _sdpa(INPUTS, causal)),
        Formula(
            f"{about}, a window",
            source,
            lambda t: call(t, INPUTS, window=3),
            lambda: _sdpa(INPUTS, causal & (DISTANCE < 3)),
        ),
        Formula(f"{about}, a bias", source, lambda t: call(t, WITH_BIAS), lambda: _sdpa(WITH_BIAS, causal)),
    ]


# --- layers

(X,) = numbers((2, TIME, 8))
CAUSAL = torch.from_numpy(np.where(DISTANCE >= 0, 0.0, -np.inf))[None, None]
UNTURNED = (torch.ones(1, TIME, 4, dtype=torch.float64), torch.zeros(1, TIME, 4, dtype=torch.float64))
"""Cosines and sines of angle 0."""


def _fill(module: torch.nn.Module, weights: dict[str, np.ndarray]) -> torch.nn.Module:
    module = module.double()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return module


DIFFERENTIAL = Attention(kind="differential", n_heads=2, n_kv_heads=1, head_dim=4)
DIFFERENTIAL_WEIGHTS = named(
    q_proj__weight=(8, 16), k_proj__weight=(8, 8), v_proj__weight=(8, 8), o_proj__weight=(16, 8),
    lambda_q1=(4,), lambda_k1=(4,), lambda_q2=(4,), lambda_k2=(4,),
)  # fmt: skip


def _differential(twin) -> np.ndarray:
    spec = layer(attention=DIFFERENTIAL, position=Position(kind="none"), norm=Norm(eps=1e-3))
    weights = DIFFERENTIAL_WEIGHTS | {"head_norm.weight": np.ones(8)}
    return twin.attention(spec, 2, weights, X, None)[0]


def _diffllama() -> torch.Tensor:
    config = DiffLlamaConfig(
        hidden_size=8, num_attention_heads=4, num_key_value_heads=2, head_dim=4, rms_norm_eps=1e-3,
        attn_implementation="eager",
    )  # fmt: skip
    weights = {name: value.T if value.ndim == 2 else value for name, value in DIFFERENTIAL_WEIGHTS.items()}
    return _fill(DiffLlamaAttention(config, 2), weights)(torch.from_numpy(X), UNTURNED, CAUSAL)[0].detach()


GATED = Attention(n_heads=2, n_kv_heads=1, head_dim=4, qk_norm="rmsnorm", gate="element")
GATED_WEIGHTS = named(
    q_proj__weight=(8, 8), k_proj__weight=(8, 4), v_proj__weight=(8, 4), o_proj__weight=(8, 8),
    q_norm__norm__weight=(4,), k_norm__norm__weight=(4,), gate__gate_proj__weight=(8, 8),
)  # fmt: skip


def _gated(twin) -> np.ndarray:
    spec = layer(attention=GATED, position=Position(kind="none"), norm=Norm(weight="one_plus"))
    return twin.attention(spec, 0, GATED_WEIGHTS, X, None)[0]


def _qwen3_next() -> torch.Tensor:
    """Its query projection holds the gate of each head behind the query of that head."""
    config = Qwen3NextConfig(
        hidden_size=8, num_attention_heads=2, num_key_value_heads=1, head_dim=4, rms_norm_eps=Norm().eps,
        attn_implementation="eager",
    )  # fmt: skip
    w = {name.replace(".norm.", "."): value.T for name, value in GATED_WEIGHTS.items()}
    gate = w.pop("gate.gate_proj.weight").reshape(2, 4, 8)
    w["q_proj.weight"] = np.concatenate([w["q_proj.weight"].reshape(2, 4, 8), gate], axis=1).reshape(16, 8)
    return _fill(Qwen3NextAttention(config, 0), w)(torch.from_numpy(X), UNTURNED, CAUSAL)[0].detach()


COSINES = Attention(n_heads=2, head_dim=3, qk_norm="l2")
COSINE_WEIGHTS = named(q_proj__weight=(8, 6), k_proj__weight=(8, 6), v_proj__weight=(8, 6), o_proj__weight=(6, 8))


def _cosines(twin) -> np.ndarray:
    spec = layer(attention=COSINES, position=Position(kind="none"), norm=Norm(eps=TINY))
    return twin.attention(spec, 0, COSINE_WEIGHTS, X, None)[0]


def _normalize() -> torch.Tensor:
    w = {name: torch.from_numpy(value) for name, value in COSINE_WEIGHTS.items()}
    q, k, v = ((torch.from_numpy(X) @ w[f"{name}_proj.weight"]).unflatten(-1, (2, 3)).transpose(1, 2) for name in "qkv")
    q, k = (torch.nn.functional.normalize(y, dim=-1) for y in (q, k))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=3**0.5)
    return y.transpose(1, 2).flatten(2) @ w["o_proj.weight"]


FORMULAS = [
    *(formula for kind in ("dot_product", "flash", "fused") for formula in _kernels(kind)),
    Formula(
        "attention.kind=differential",
        "transformers, DiffLlamaAttention",
        _differential,
        _diffllama,
        tolerance=1e-6,
        why=FLOAT32,
    ),
    Formula(
        "attention.gate=element",
        "transformers, Qwen3NextAttention",
        _gated,
        _qwen3_next,
        tolerance=1e-6,
        why=FLOAT32,
    ),
    Formula("attention.qk_norm=l2", "torch, normalize and scaled_dot_product_attention", _cosines, _normalize),
]
