"""Mamba-2 (Dao and Gu 2024, https://arxiv.org/abs/2405.21060): blocks of a state space model, without MLPs."""

import math
from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Mixer, Mlp, Model, Norm
from slm_core.config.bounds import TOKENS
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.errors import UserError
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Field, Fields, flag, number, whole, word
from slm_core.hf.rules import TAPS, TRANSPOSED, Rule, fused, linear, norm, split, tensor, then

UNLIMITED = ((0.0, math.inf), [0.0, math.inf], [0.0, {"__float__": "Infinity"}])
"""No limit of the steps, as the class has it, and as older and newer ones write it: JSON has no infinity."""
FIELDS = {
    "vocab_size": whole(32768),
    "hidden_size": whole(4096),
    "num_hidden_layers": whole(64),
    "num_heads": whole(128),
    "head_dim": whole(64),
    "state_size": whole(128),
    "n_groups": whole(8),
    "expand": whole(2),
    "conv_kernel": whole(4),
    "use_conv_bias": flag(True),
    "use_bias": flag(False),
    "hidden_act": word("silu"),
    "layer_norm_epsilon": number(1e-5),
    "rms_norm": flag(True),
    "time_step_limit": Field("a list", UNLIMITED[0]),
    "tie_word_embeddings": flag(False),
}
NEUTRAL = (
    "chunk_size", "norm_before_gate", "rescale_prenorm_residual", "residual_in_fp32", "time_step_floor",
    "time_step_max", "time_step_min", "time_step_rank",
)  # fmt: skip
"""Initial values, the order of sums, and the dtype of the stream. The class has its norm behind the gate."""


def read(fields: Fields) -> Config:
    fields.only("use_bias", False)
    fields.only("rms_norm", True)
    fields.only("hidden_act", "silu", "swish")
    fields.only("time_step_limit", *UNLIMITED)
    fields.divides("n_groups", "num_heads")
    heads, width, inner = fields.get("num_heads"), fields.get("hidden_size"), fields.get("head_dim")
    if heads * inner != fields.get("expand") * width:
        raise UserError(
            f"config.json: num_heads={heads} times head_dim={inner} of a mamba2 model is not expand="
            f"{fields.get('expand')} times hidden_size={width}: restore the file"
        )
    mixer = Mixer(
        kind="mamba2",
        n_heads=heads,
        key_heads=fields.get("n_groups"),
        key_dim=fields.get("state_size"),
        value_dim=inner,
        convolution=fields.get("conv_kernel"),
        convolution_bias=fields.get("use_conv_bias"),
    )
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        mixer=mixer,
        norm=Norm(kind="rmsnorm", eps=fields.get("layer_norm_epsilon")),
        mlp=Mlp(kind="none"),
    )
    return imported(model, [{}] * fields.get("num_hidden_layers"), TOKENS)


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    mixer = layer.mixer
    return {
        "hidden_size": layer.d_model,
        "num_hidden_layers": layer.n_layers,
        "num_heads": mixer.n_heads,
        "head_dim": mixer.value_dim,
        "state_size": mixer.key_dim,
        "n_groups": mixer.key_heads,
        "expand": max(1, mixer.n_heads * mixer.value_dim // layer.d_model),
        "conv_kernel": max(1, mixer.convolution),
        "use_conv_bias": mixer.convolution_bias,
        "layer_norm_epsilon": layer.norm.eps,
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "backbone.embeddings.weight")
    for i, layer in enumerate(layer_specs(config.model)):
        yield from norm(f"layers.{i}.attention_norm", f"backbone.layers.{i}.norm")
        yield from _mixer_rules(layer, f"layers.{i}.mixer", f"backbone.layers.{i}.mixer")
    yield from norm("final_norm", "backbone.norm_f")
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


def _mixer_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    mixer = layer.mixer
    keys, values = mixer.key_heads * mixer.key_dim, mixer.n_heads * mixer.value_dim
    parts = {"z_proj": values, "v_proj": values, "k_proj": keys, "q_proj": keys, "s_proj": mixer.n_heads}
    layout = then(TRANSPOSED, split(list(parts.values())))
    yield from fused([f"{path}.{name}" for name in parts], f"{hf_path}.in_proj", layout)
    channels = {"v_conv": values, "k_conv": keys, "q_conv": keys}
    yield from convolution_rules(path, f"{hf_path}.conv1d", channels, mixer.convolution_bias)
    for name, hf_name in {"step_bias": "dt_bias", "log_rate": "A_log", "skip": "D"}.items():
        yield from tensor(f"{path}.{name}", f"{hf_path}.{hf_name}")
    yield from norm(f"{path}.output_norm", f"{hf_path}.norm")
    yield from linear(f"{path}.o_proj", f"{hf_path}.out_proj")


def convolution_rules(path: str, hf_path: str, channels: dict[str, int], bias: bool = False) -> Iterator[Rule]:
    """Yields the rules of convolutions, {name: channels}, that are one in a checkpoint, [channels, 1, taps]."""
    names, sizes = list(channels), list(channels.values())
    yield Rule(tuple(f"{path}.{name}.weight" for name in names), (f"{hf_path}.weight",), then(TAPS, split(sizes)))
    if bias:
        yield Rule(tuple(f"{path}.{name}.bias" for name in names), (f"{hf_path}.bias",), split(sizes))


TINY = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 12,
    "n_groups": 1, "chunk_size": 16,
}  # fmt: skip
EXAMPLES = {
    "": TINY,
    "groups, tied, no bias, three taps": TINY | {
        "n_groups": 4, "tie_word_embeddings": True, "use_conv_bias": False, "conv_kernel": 3, "num_hidden_layers": 3,
        "layer_norm_epsilon": 1e-3,
    },
}  # fmt: skip

MAMBA2 = Family(
    "mamba2", "Mamba2ForCausalLM", FIELDS, read, write, rules, prefix="backbone.", neutral=NEUTRAL, examples=EXAMPLES
)
