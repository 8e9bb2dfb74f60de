"""Recurrent mixers: layers of Hugging Face transformers, and recurrences of flash-linear-attention in PyTorch alone."""

import warnings
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from transformers import KimiLinearConfig, Mamba2Config, Qwen3NextConfig
from transformers.models.kimi_linear import modeling_kimi_linear
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next import modeling_qwen3_next

from slm_core.config import Mixer, Norm
from tests.conformance.arrays import layer, named, numbers
from tests.outside.formula import Formula

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that its fast kernels need a GPU
    from fla.ops.delta_rule.naive import delta_rule_recurrence
    from fla.ops.gla.naive import naive_recurrent_gla
    from fla.ops.linear_attn.naive import naive_recurrent_linear_attn
    from fla.ops.retention.naive import naive_retention

FLOAT32 = "it computes in float32"
TIME = 19
NORM = Norm(eps=1e-6)
X = numbers((2, TIME, 8))[0]


def _applied(mixer: torch.nn.Module, module: ModuleType) -> torch.Tensor:
    """Applies a layer by PyTorch alone: beside flash-linear-attention, transformers calls its GPU kernels."""
    decorated = {name: f for name, f in vars(module).items() if name.startswith(("chunk_", "torch_chunk_"))}
    with patch.multiple(module, **{name: f.__wrapped__ for name, f in decorated.items()}):
        return mixer(torch.from_numpy(X)).detach()


# --- Mamba-2: two heads of width 8, a state of 5

MAMBA2 = Mixer(kind="mamba2", n_heads=2, key_dim=5, value_dim=8, chunk=8)
MAMBA2_WEIGHTS = named(
    z_proj__weight=(8, 16), v_proj__weight=(8, 16), k_proj__weight=(8, 5), q_proj__weight=(8, 5), s_proj__weight=(8, 2),
    v_conv__weight=(4, 16), k_conv__weight=(4, 5), q_conv__weight=(4, 5), log_rate=(2,), step_bias=(2,), skip=(2,),
    output_norm__weight=(16,), o_proj__weight=(16, 8),
)  # fmt: skip


def _mamba2() -> torch.Tensor:
    """Its projection is z, v, k, q and the steps beside each other."""
    config = Mamba2Config(
        hidden_size=8, num_heads=2, head_dim=8, expand=2, state_size=5, n_groups=1, conv_kernel=4, use_conv_bias=False,
        chunk_size=8, layer_norm_epsilon=NORM.eps, num_hidden_layers=1,
    )  # fmt: skip
    w = {name: torch.from_numpy(value) for name, value in MAMBA2_WEIGHTS.items()}
    mixer = Mamba2Mixer(config, 0).double().eval()
    mixer.load_state_dict({
        "in_proj.weight": torch.cat([w[f"{name}_proj.weight"] for name in "zvkqs"], 1).T,
        "conv1d.weight": torch.cat([w[f"{name}_conv.weight"] for name in "vkq"], 1).T[:, None],
        "A_log": w["log_rate"], "dt_bias": w["step_bias"], "D": w["skip"], "norm.weight": w["output_norm.weight"],
        "out_proj.weight": w["o_proj.weight"].T,
    })  # fmt: skip
    return mixer(torch.from_numpy(X)).detach()


# --- Gated DeltaNet: two heads, keys of width 6, values of width 4

GATED_DELTA = Mixer(kind="gated_delta", n_heads=2, key_dim=6, value_dim=4, chunk=8)
GATED_DELTA_WEIGHTS = named(
    q_proj__weight=(8, 12), k_proj__weight=(8, 12), v_proj__weight=(8, 8), g_proj__weight=(8, 8),
    b_proj__weight=(8, 2), a_proj__weight=(8, 2), q_conv__weight=(4, 12), k_conv__weight=(4, 12),
    v_conv__weight=(4, 8), log_rate=(2,), step_bias=(2,), head_norm__weight=(4,), o_proj__weight=(8, 8),
)  # fmt: skip


def _gated_delta() -> torch.Tensor:
    """Its projections have the parts of one head beside each other."""
    config = Qwen3NextConfig(
        hidden_size=8, linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=6,
        linear_value_head_dim=4, linear_conv_kernel_dim=4, rms_norm_eps=NORM.eps, num_hidden_layers=1,
        layer_types=["linear_attention"],
    )  # fmt: skip
    w = {name: torch.from_numpy(value) for name, value in GATED_DELTA_WEIGHTS.items()}
    by_head = lambda names: torch.cat([w[f"{name}_proj.weight"].unflatten(1, (2, -1)) for name in names], 2).flatten(1)  # noqa: E731
    mixer = modeling_qwen3_next.Qwen3NextGatedDeltaNet(config, 0).double().eval()
    mixer.load_state_dict({
        "in_proj_qkvz.weight": by_head("qkvg").T, "in_proj_ba.weight": by_head("ba").T,
        "conv1d.weight": torch.cat([w[f"{name}_conv.weight"] for name in "qkv"], 1).T[:, None],
        "A_log": w["log_rate"], "dt_bias": w["step_bias"], "norm.weight": w["head_norm.weight"],
        "out_proj.weight": w["o_proj.weight"].T,
    })  # fmt: skip
    return _applied(mixer, modeling_qwen3_next)


# --- Kimi Delta Attention: two heads of width 6, inner width 6

KDA = Mixer(kind="kda", n_heads=2, key_dim=6, value_dim=6, decay_rank=6, chunk=8)
KDA_WEIGHTS = named(
    q_proj__weight=(8, 12), k_proj__weight=(8, 12), v_proj__weight=(8, 12), q_conv__weight=(4, 12),
    k_conv__weight=(4, 12), v_conv__weight=(4, 12), b_proj__weight=(8, 2), decay_down_proj__weight=(8, 6),
    decay_up_proj__weight=(6, 12), log_rate=(2,), step_bias=(12,), gate_down_proj__weight=(8, 6),
    gate_up_proj__weight=(6, 12), head_norm__weight=(6,), o_proj__weight=(12, 8),
)  # fmt: skip


def _kda() -> torch.Tensor:
    config = KimiLinearConfig(
        hidden_size=8, linear_num_heads=2, linear_head_dim=6, linear_conv_kernel_dim=4, rms_norm_eps=NORM.eps,
        num_hidden_layers=1, layer_types=["linear_attention"], mlp_layer_types=["dense"],
    )  # fmt: skip
    w = {name: torch.from_numpy(value) for name, value in KDA_WEIGHTS.items()}
    mixer = modeling_kimi_linear.KimiLinearDeltaAttention(config, 0).double().eval()
    names = {
        "q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "b_proj": "b_proj", "o_proj": "o_proj",
        "forget_gate.f_a_proj": "decay_down_proj", "forget_gate.f_b_proj": "decay_up_proj",
        "g_a_proj": "gate_down_proj", "g_b_proj": "gate_up_proj",
    }  # fmt: skip
    mixer.load_state_dict({f"{theirs}.weight": w[f"{ours}.weight"].T for theirs, ours in names.items()} | {
        "conv1d.weight": torch.cat([w[f"{name}_conv.weight"] for name in "qkv"], 1).T[:, None],
        "forget_gate.A_log": w["log_rate"].view(1, 1, 2, 1), "forget_gate.dt_bias": w["step_bias"],
        "o_norm.weight": w["head_norm.weight"],
    })  # fmt: skip
    return _applied(mixer, modeling_kimi_linear)


# --- The others: two heads, keys of width 6, values of width 4; flash-linear-attention has their recurrences

SHAPE = dict(n_heads=2, key_dim=6, value_dim=4, chunk=8, convolution=0)
QKVO = dict(q_proj__weight=(8, 12), k_proj__weight=(8, 12), v_proj__weight=(8, 8), o_proj__weight=(8, 8))
GATE_AND_NORM = dict(g_proj__weight=(8, 8), head_norm__weight=(4,))

LINEAR, LINEAR_WEIGHTS = Mixer(kind="linear", **SHAPE), named(**QKVO)
RETENTION, RETENTION_WEIGHTS = Mixer(kind="retention", **SHAPE), named(**QKVO, **GATE_AND_NORM)
GLA = Mixer(kind="gla", decay_rank=3, **SHAPE)
GLA_WEIGHTS = named(
    **QKVO, **GATE_AND_NORM, decay_down_proj__weight=(8, 3), decay_up_proj__weight=(3, 12), decay_up_proj__bias=(12,)
)
DELTA, DELTA_WEIGHTS = Mixer(kind="delta", **SHAPE), named(**QKVO, b_proj__weight=(8, 2), head_norm__weight=(4,))


def _parts(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Computes what the projections make, by head: [batch, time, heads, width]."""
    x, w = torch.from_numpy(X), {name: torch.from_numpy(value) for name, value in weights.items()}
    made = {name.removesuffix("_proj.weight"): x @ value for name, value in w.items() if len(value) == 8}
    return {name: y.unflatten(-1, (2, -1)) for name, y in made.items() if name in "qkvgb"} | {"x": x, "w": w}


def _normed(y: torch.Tensor, parts: dict) -> torch.Tensor:
    """Applies torch's RMSNorm to each head."""
    return torch.nn.functional.rms_norm(y, (4,), parts["w"]["head_norm.weight"], NORM.eps)


def _projected(y: torch.Tensor, parts: dict) -> torch.Tensor:
    return y.flatten(-2) @ parts["w"]["o_proj.weight"]


def _linear() -> torch.Tensor:
    parts = _parts(LINEAR_WEIGHTS)
    q, k = (torch.nn.functional.elu(parts[name]) + 1 for name in "qk")
    return _projected(naive_recurrent_linear_attn(q, k, parts["v"], normalize=True)[0], parts)


def _retention() -> torch.Tensor:
    """Turns pairs of features as complex numbers."""
    parts = _parts(RETENTION_WEIGHTS)
    angle = torch.outer(torch.arange(TIME), 10000.0 ** (-torch.arange(3) / 3))[:, None]

    def turned(x: torch.Tensor) -> torch.Tensor:
        y = torch.complex(x[..., :3], x[..., 3:]) * torch.exp(1j * angle)
        return torch.cat([y.real, y.imag], -1)

    by_head = (x.transpose(1, 2) for x in (turned(parts["q"]), turned(parts["k"]), parts["v"]))
    y = naive_retention(*by_head).transpose(1, 2)
    return _projected(_normed(y, parts) * torch.nn.functional.silu(parts["g"]), parts)


def _gla() -> torch.Tensor:
    parts = _parts(GLA_WEIGHTS)
    w = parts["w"]
    logits = parts["x"] @ w["decay_down_proj.weight"] @ w["decay_up_proj.weight"] + w["decay_up_proj.bias"]
    log_decay = torch.nn.functional.logsigmoid(logits).unflatten(-1, (2, 6)) / 16
    y, _ = naive_recurrent_gla(parts["q"], parts["k"], parts["v"], log_decay)
    return _projected(_normed(y, parts) * torch.nn.functional.silu(parts["g"]), parts)


def _delta() -> torch.Tensor:
    parts = _parts(DELTA_WEIGHTS)
    q, k = (torch.nn.functional.normalize(parts[name], dim=-1) for name in "qk")
    by_head = (x.transpose(1, 2) for x in (q, k, parts["v"], torch.sigmoid(parts["b"])))
    y = delta_rule_recurrence(*by_head)[0].transpose(1, 2)
    return _projected(_normed(y, parts), parts)


def _ours(mixer: Mixer, weights: dict[str, np.ndarray]):
    return lambda twin: twin.apply("MIXER", mixer.kind, (layer(mixer=mixer, norm=NORM), TIME), weights, X, 0, None)


FORMULAS = [
    Formula(f"mixer.kind={mixer.kind}", source, _ours(mixer, weights), theirs, tolerance=1e-5, why=FLOAT32)
    for mixer, weights, source, theirs in (
        (LINEAR, LINEAR_WEIGHTS, "flash-linear-attention, naive_recurrent_linear_attn", _linear),
        (RETENTION, RETENTION_WEIGHTS, "flash-linear-attention, naive_retention", _retention),
        (GLA, GLA_WEIGHTS, "flash-linear-attention, naive_recurrent_gla", _gla),
        (DELTA, DELTA_WEIGHTS, "flash-linear-attention, delta_rule_recurrence", _delta),
        (GATED_DELTA, GATED_DELTA_WEIGHTS, "transformers, Qwen3NextGatedDeltaNet", _gated_delta),
        (KDA, KDA_WEIGHTS, "transformers, KimiLinearDeltaAttention", _kda),
        (MAMBA2, MAMBA2_WEIGHTS, "transformers, Mamba2Mixer", _mamba2),
    )
]
