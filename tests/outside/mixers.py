"""Recurrent mixers: layers of Hugging Face transformers."""

import numpy as np
import torch
from transformers import Mamba2Config, Qwen3NextConfig
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from slm_core.config import Mixer, Norm
from tests.conformance.arrays import layer, named, numbers
from tests.outside.formula import Formula

FLOAT32 = "its decay is float32"
TIME = 19
NORM = Norm(eps=1e-6)
X = numbers((2, TIME, 8))[0]


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
    mixer = Qwen3NextGatedDeltaNet(config, 0).double().eval()
    mixer.load_state_dict({
        "in_proj_qkvz.weight": by_head("qkvg").T, "in_proj_ba.weight": by_head("ba").T,
        "conv1d.weight": torch.cat([w[f"{name}_conv.weight"] for name in "qkv"], 1).T[:, None],
        "A_log": w["log_rate"], "dt_bias": w["step_bias"], "norm.weight": w["head_norm.weight"],
        "out_proj.weight": w["o_proj.weight"].T,
    })  # fmt: skip
    return mixer(torch.from_numpy(X)).detach()


def _ours(mixer: Mixer, weights: dict[str, np.ndarray]):
    return lambda twin: twin.apply("MIXER", mixer.kind, (layer(mixer=mixer, norm=NORM), TIME), weights, X, 0, None)


FORMULAS = [
    Formula(
        "mixer.kind=mamba2",
        "transformers, Mamba2Mixer",
        _ours(MAMBA2, MAMBA2_WEIGHTS),
        _mamba2,
        tolerance=1e-5,
        why=FLOAT32,
    ),
    Formula(
        "mixer.kind=gated_delta",
        "transformers, Qwen3NextGatedDeltaNet",
        _ours(GATED_DELTA, GATED_DELTA_WEIGHTS),
        _gated_delta,
        tolerance=1e-5,
        why=FLOAT32,
    ),
]
