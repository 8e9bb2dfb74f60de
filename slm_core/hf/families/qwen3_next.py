"""Qwen3-Next (Qwen Team 2025, https://huggingface.co/Qwen/Qwen3-Next-80B-A3B-Instruct): Gated DeltaNet in most layers,
gated attention in the others, and mixtures of experts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from slm_core.config import Attention, Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import ROOMY, TINY
from slm_core.hf.families.llama import NORMS, attention_bias, norm_rules, outer_rules, read_model, write_model
from slm_core.hf.families.mamba2 import convolution_rules
from slm_core.hf.families.mixtral import write_routing
from slm_core.hf.families.qwen2_moe import read_shared_mixture, shared_mixture_rules
from slm_core.hf.families.qwen3_moe import FIELDS as QWEN3_MOE_FIELDS
from slm_core.hf.families.qwen3_moe import mixture_of, read_sparse, with_mixtures, write_hidden
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, whole
from slm_core.hf.layer_types import FULL
from slm_core.hf.rope import read_partial, rope_fields, rope_parameters, write_partial
from slm_core.hf.rules import ONE_PLUS, TRANSPOSED, Rule, fused, linear, norm, split_heads, tensor, then

LINEAR = "linear_attention"
WINDOWS = ("use_sliding_window", "sliding_window")
FIELDS = {name: field for name, field in QWEN3_MOE_FIELDS.items() if name not in WINDOWS} | {
    "intermediate_size": whole(5632),
    "num_hidden_layers": whole(48),
    "num_attention_heads": whole(16),
    "num_key_value_heads": whole(2),
    "head_dim": whole(256),
    **rope_fields(share=0.25),
    "linear_conv_kernel_dim": whole(4),
    "linear_key_head_dim": whole(128),
    "linear_value_head_dim": whole(128),
    "linear_num_key_heads": whole(16),
    "linear_num_value_heads": whole(32),
    "layer_types": listed(),
    "full_attention_interval": whole(4),
    "moe_intermediate_size": whole(512),
    "shared_expert_intermediate_size": whole(512),
    "num_experts": whole(512, low=0),
    "num_experts_per_tok": whole(10),
    "norm_topk_prob": flag(True),
}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    fields.only("hidden_act", "silu", "swish")  # the convolutions take it, too
    fields.only("rms_norm_eps", 1e-6)  # the class takes 1e-6 for the lengths of queries and keys, whatever this is
    fields.divides("linear_num_key_heads", "linear_num_value_heads")
    position = Position(**read_partial(rope_parameters(fields), fields.get("head_dim")))
    values = {"attention.qk_norm": "rmsnorm", "attention.gate": "element", "norm.weight": "one_plus"}
    model = with_values(read_model(fields, position=position), values)
    if any(sparse := read_sparse(fields)):
        model, mixtures = with_mixtures(model, read_shared_mixture(fields), sparse)
    else:
        mixtures = [{}] * len(sparse)
    types = _read_types(fields)
    if FULL not in types:
        model = with_values(model, {"attention": Attention(), "position": Position()})
    mixers = [_read_mixer(fields) if kind == LINEAR else {} for kind in types]
    layers = [mixture | mixer for mixture, mixer in zip(mixtures, mixers, strict=True)]
    return imported(model, layers, fields.get("max_position_embeddings"))


def _read_types(fields: Fields) -> list[str]:
    count, every = fields.get("num_hidden_layers"), fields.get("full_attention_interval")
    types = fields.get("layer_types")
    if types is None:
        return [LINEAR if (i + 1) % every else FULL for i in range(count)]
    for other in types:
        if other not in (FULL, LINEAR):
            raise UserError(f"config.json: {other!r} in layer_types cannot be expressed: only {FULL!r} or {LINEAR!r}")
    if len(types) != count:
        raise UserError(f"config.json: layer_types names {len(types)} of num_hidden_layers={count}: restore the file")
    return types


MIXER = {
    "mixer.n_heads": "linear_num_value_heads", "mixer.key_heads": "linear_num_key_heads",
    "mixer.key_dim": "linear_key_head_dim", "mixer.value_dim": "linear_value_head_dim",
    "mixer.convolution": "linear_conv_kernel_dim",
}  # fmt: skip
"""{field inside `model.`: its name in config.json}"""


def _read_mixer(fields: Fields) -> dict[str, Any]:
    return {"mixer.kind": "gated_delta"} | {name: fields.get(hf_name) for name, hf_name in MIXER.items()}


def write(config: Config) -> dict[str, Any]:
    layers = layer_specs(config.model)
    full = _first(layers, lambda layer: layer.mixer.kind == "attention")
    mixer = _first(layers, lambda layer: layer.mixer.kind != "attention").mixer
    mixture = mixture_of(layers)
    return {
        **write_model(config, layer=full),
        **write_routing(mixture),
        **write_hidden(layers),
        **{hf_name: getattr(mixer, name.removeprefix("mixer.")) for name, hf_name in MIXER.items()},
        "linear_conv_kernel_dim": max(1, mixer.convolution),
        "layer_types": [FULL if layer.mixer.kind == "attention" else LINEAR for layer in layers],
        "rope_parameters": write_partial(full, config.data.seq_len),
        "attention_bias": attention_bias(full),
        "num_experts": mixture.experts,
        "norm_topk_prob": mixture.renormalise,
        "shared_expert_intermediate_size": mixture.hidden * max(1, mixture.shared_experts),
        "mlp_only_layers": [i for i, layer in enumerate(layers) if layer.mlp.kind != "moe"],
    }


def _first(layers: Sequence[LayerSpec], fits: Callable[[LayerSpec], bool]) -> LayerSpec:
    """Returns the first layer that fits; the first of all if none does."""
    return next(filter(fits, layers), layers[0])


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        if layer.mixer.kind == "attention":
            yield from _attention_rules(layer, f"layers.{i}.attention", f"model.layers.{i}.self_attn")
        else:
            yield from _mixer_rules(layer, f"layers.{i}.mixer", f"model.layers.{i}.linear_attn")
        yield from shared_mixture_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, NORMS)


def _attention_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    heads, width, bias = layer.attention.n_heads, layer.attention.head_dim, layer.attention.bias
    both = then(TRANSPOSED, split_heads(heads, [width, width]))
    yield from fused([f"{path}.q_proj", f"{path}.gate.gate_proj"], f"{hf_path}.q_proj", both, bias)
    for name in ("k_proj", "v_proj"):
        yield from linear(f"{path}.{name}", f"{hf_path}.{name}", bias)
    yield from linear(f"{path}.o_proj", f"{hf_path}.o_proj", layer.attention.output_bias)
    for name in ("q_norm", "k_norm"):
        yield from norm(f"{path}.{name}.norm", f"{hf_path}.{name}")


def _mixer_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    mixer = layer.mixer
    shared = mixer.n_heads // mixer.key_heads
    sizes = {"q_proj": mixer.key_dim, "k_proj": mixer.key_dim}
    sizes |= {"v_proj": shared * mixer.value_dim, "g_proj": shared * mixer.value_dim}
    for hf_name, parts in {"in_proj_qkvz": sizes, "in_proj_ba": {"b_proj": shared, "a_proj": shared}}.items():
        layout = then(TRANSPOSED, split_heads(mixer.key_heads, list(parts.values())))
        yield from fused([f"{path}.{name}" for name in parts], f"{hf_path}.{hf_name}", layout)
    keys, values = mixer.key_heads * mixer.key_dim, mixer.n_heads * mixer.value_dim
    yield from convolution_rules(path, f"{hf_path}.conv1d", {"q_conv": keys, "k_conv": keys, "v_conv": values})
    for name, hf_name in {"step_bias": "dt_bias", "log_rate": "A_log"}.items():
        yield from tensor(f"{path}.{name}", f"{hf_path}.{hf_name}")
    yield from tensor(f"{path}.head_norm.weight", f"{hf_path}.norm.weight", ONE_PLUS)
    yield from linear(f"{path}.o_proj", f"{hf_path}.out_proj")


TINY_NEXT = {
    "num_hidden_layers": 2, "full_attention_interval": 2, "head_dim": 8, "rope_parameters": {
        "rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.25,
    },
    "linear_key_head_dim": 6, "linear_value_head_dim": 8, "linear_num_key_heads": 8, "linear_num_value_heads": 16,
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 48, "num_experts": 5, "num_experts_per_tok": 2,
}  # fmt: skip
EXAMPLES = {
    "": TINY | TINY_NEXT,
    "dense layers, half rotation, tied, biases, three taps": ROOMY | TINY_NEXT | {
        "rms_norm_eps": 1e-6, "num_hidden_layers": 3, "head_dim": 12, "mlp_only_layers": [1], "norm_topk_prob": False,
        "layer_types": [FULL, LINEAR, LINEAR], "tie_word_embeddings": True, "attention_bias": True,
        "linear_conv_kernel_dim": 3, "linear_num_key_heads": 16, "linear_num_value_heads": 16,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 4.0, "partial_rotary_factor": 0.5},
    },
}  # fmt: skip

QWEN3_NEXT = Family(
    "qwen3_next",
    "Qwen3NextForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    unused=lambda config: ("mtp.",),
    examples=EXAMPLES,
)
