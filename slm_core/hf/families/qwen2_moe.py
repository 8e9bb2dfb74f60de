"""Qwen2-MoE and Qwen1.5-MoE (Yang et al. 2024, https://arxiv.org/abs/2407.10671): mixtures of experts in some layers,
beside shared experts that a gate weighs."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Mlp
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import NORMS, attention_rules, mlp_rules, norm_rules, outer_rules, read_model
from slm_core.hf.families.qwen3_moe import FIELDS as QWEN3_MOE_FIELDS
from slm_core.hf.families.qwen3_moe import mixture_of, read_mixture, read_sparse, sparse_or_dense_rules, with_mixtures
from slm_core.hf.families.qwen3_moe import write as write_mixtures
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, whole
from slm_core.hf.layer_types import read_layer_types, read_window, read_windows, write_layer_types
from slm_core.hf.rules import Rule, linear

FIELDS = QWEN3_MOE_FIELDS | {
    "intermediate_size": whole(5632),
    "num_attention_heads": whole(16),
    "num_key_value_heads": whole(16),
    "head_dim": whole(None),
    "sliding_window": whole(4096, low=0, null=True),  # the class writes 0 if use_sliding_window is off
    "max_window_layers": whole(28, low=0),
    "layer_types": listed(),
    "moe_intermediate_size": whole(1408),
    "shared_expert_intermediate_size": whole(5632),
    "num_experts": whole(60, low=0),
    "num_experts_per_tok": whole(4),
    "qkv_bias": flag(True),
}


def read(fields: Fields) -> Config:
    for name in ("attention_bias", "mlp_bias"):
        fields.only(name, False)
    window, last = read_window(fields), fields.get("max_window_layers")
    if window is not None and window < 2:
        raise UserError(f"config.json: sliding_window={window} of a qwen2_moe model is less than 2: restore it")
    types = read_layer_types(fields, lambda i: window is not None and i % 2 == 0 and i < last)
    sparse = read_sparse(fields)
    values = {"attention.bias": fields.get("qkv_bias"), "attention.output_bias": False}
    model = with_values(read_model(fields), values)
    if any(sparse):
        model, mixtures = with_mixtures(model, read_shared_mixture(fields), sparse)
    else:
        mixtures = [{}] * len(sparse)
    layers = [mixture | windows for mixture, windows in zip(mixtures, read_windows(types, window), strict=True)]
    return imported(model, layers, fields.get("max_position_embeddings"))


def read_shared_mixture(fields: Fields) -> Mlp:
    """Reads a mixture with shared experts and their gate."""
    name = "shared_expert_intermediate_size"
    shared, hidden = fields.get(name), fields.get("moe_intermediate_size")
    if shared % hidden:
        raise UserError(
            f"config.json: {name}={shared} of a {fields.family} model cannot be expressed: only a multiple of"
            f" moe_intermediate_size={hidden}"
        )
    values = {"shared_experts": shared // hidden, "shared_gate": True}
    return with_values(read_mixture(fields, "moe_intermediate_size"), values)


def write(config: Config) -> dict[str, Any]:
    layers = layer_specs(config.model)
    mixture, types = mixture_of(layers), write_layer_types(config)
    written = write_mixtures(config) | types | {
        "shared_expert_intermediate_size": mixture.hidden * max(1, mixture.shared_experts),
        "use_sliding_window": types["sliding_window"] is not None,
        "qkv_bias": layers[0].attention.bias,
    }  # fmt: skip
    del written["attention_bias"]
    return written


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i)
        yield from shared_mixture_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, NORMS)


def shared_mixture_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    """Yields the rules of a mixture with shared experts, or of a gated MLP."""
    yield from sparse_or_dense_rules(layer, path, hf_path)
    if layer.mlp.kind == "moe":
        yield from mlp_rules(layer, f"{path}.shared", f"{hf_path}.shared_expert")
        yield from linear(f"{path}.shared_gate", f"{hf_path}.shared_expert_gate")


TINY_SHARED = {
    "moe_intermediate_size": 24, "shared_expert_intermediate_size": 48, "num_experts": 5, "num_experts_per_tok": 2,
}  # fmt: skip
EXAMPLES = {
    "": TINY | TINY_SHARED,
    "dense layers, windows, yarn, tied, no biases, gelu": ROOMY | TINY_SHARED | {
        "num_hidden_layers": 6, "mlp_only_layers": [3], "decoder_sparse_step": 2, "norm_topk_prob": True,
        "shared_expert_intermediate_size": 24, "use_sliding_window": True, "sliding_window": 8,
        "max_window_layers": 4, "rope_parameters": TINY_YARN, "tie_word_embeddings": True, "qkv_bias": False,
        "hidden_act": "gelu",
    },
}  # fmt: skip

QWEN2_MOE = Family("qwen2_moe", "Qwen2MoeForCausalLM", FIELDS, read, write, rules, examples=EXAMPLES)
