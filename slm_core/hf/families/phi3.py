"""Phi-3 and Phi-4 (Abdin et al. 2024, https://arxiv.org/abs/2404.14219): Llama whose projections are fused, and whose
heads may turn in part."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.hf.examples import ROOMY, TINY
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import NORMS, norm_rules, outer_rules, read_model, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole
from slm_core.hf.rope import only_scaling, read_partial, rope_parameters, write_partial
from slm_core.hf.rules import TRANSPOSED, Rule, fused, linear, split, then

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(32064),
    "hidden_size": whole(3072),
    "intermediate_size": whole(8192),
    "max_position_embeddings": whole(4096),
    "original_max_position_embeddings": whole(4096),
    "rms_norm_eps": number(1e-5),
    "sliding_window": whole(None, low=2),
}
NEUTRAL = ("embd_pdrop", "resid_pdrop")
"""Dropout."""


def read(fields: Fields) -> Config:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    rope = rope_parameters(fields)
    only_scaling(rope, "default")
    head_dim = fields.get("head_dim") or fields.get("hidden_size") // fields.get("num_attention_heads") or 1
    model = read_model(fields, position=Position(**read_partial(rope, head_dim)))
    model = with_values(model, {"attention.window": fields.get("sliding_window") or 0})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer, context = layer_specs(config.model)[0], config.data.seq_len
    return write_model(config) | {
        "rope_parameters": write_partial(layer, context),
        "original_max_position_embeddings": context,
        "sliding_window": layer.attention.window or None,
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        attention, path, hf_path = layer.attention, f"layers.{i}.attention", f"model.layers.{i}.self_attn"
        sizes = [attention.n_heads * attention.head_dim, *[attention.n_kv_heads * attention.head_dim] * 2]
        parts = [f"{path}.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        yield from fused(parts, f"{hf_path}.qkv_proj", then(TRANSPOSED, split(sizes)))
        yield from linear(f"{path}.o_proj", f"{hf_path}.o_proj")
        yield from fused_mlp_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, NORMS)


def fused_mlp_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    """Yields the rules of a gated MLP whose gate and up projections are one tensor, one behind the other."""
    parts = [f"{path}.gate_proj", f"{path}.up_proj"]
    yield from fused(parts, f"{hf_path}.gate_up_proj", then(TRANSPOSED, split([layer.mlp.hidden] * 2)))
    yield from linear(f"{path}.down_proj", f"{hf_path}.down_proj")


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "window, partial rotation, tied, gelu": ROOMY | {
        "sliding_window": 8, "tie_word_embeddings": True, "hidden_act": "gelu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.7},
    },
}  # fmt: skip

PHI3 = Family("phi3", "Phi3ForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
