"""Lists variants of config.json, one or two fields each. They show that no import computes another function.

The fields are those that the class declares, those of its base, and those that code beneath it asks for. Their values
are those of LIKELY, those of the family's examples, and odd ones.
"""

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from parity.oracle.cases import CASES
from slm_core.hf import FAMILIES
from slm_core.hf.fields import HARMLESS

ABSENT = "(absent)"
"""Stands for a field that config.json does not have."""
PAIRS = 0.3
"""Share of variants that change two fields."""
MISFITS = 0.1
"""Share of variants that keep the tensors of the base: the file and config.json then contradict each other."""

ODD = (ABSENT, None, 0, 0.0, False, True, "text", -1, 1, 3, 0.5, [], [1], {}, "8")
"""Values that any field is given."""
_FULL, _SLIDING = "full_attention", "sliding_attention"
_ROPE: tuple[Any, ...] = (
    {"rope_type": "default", "rope_theta": 50.0}, {"type": "linear", "factor": 4.0},
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 50.0}, {"rope_type": "linear", "type": "dynamic", "factor": 2},
    {"rope_type": "default", "type": "linear", "factor": 4.0}, {"rope_type": "linear"}, {"factor": 4.0},
    {"rope_type": "linear", "factor": 0}, {"rope_type": "linear", "factor": "4"}, {"rope_type": "linear", "factor": 1},
    {"rope_type": None, "factor": 4.0}, {"rope_type": "dynamic", "factor": 2.0}, {"rope_theta": None}, {},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.3,
     "beta_fast": 8, "beta_slow": 0.5, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.5, "mscale_all_dim": 0.8},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0, "beta_fast": 0},
    {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16.5},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 16},
    {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.5},
    {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 1.0},
    {"rope_type": "default", "rope_theta": 50.0, "finetuned": True}, {"rope_type": "default", "mrope_section": [1, 1]},
    {_FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 50.0}, _SLIDING: {"rope_type": "default"}},
    {_FULL: {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "truncate": False}},
    {_FULL: {"rope_type": "yarn", "factor": 4.0}, _SLIDING: {"rope_type": "linear", "factor": 2.0}}, {_FULL: None},
)  # fmt: skip
_TYPES: tuple[Any, ...] = (
    [_FULL] * 2, [_SLIDING] * 2, [_SLIDING, _FULL], [_FULL, _SLIDING], [_FULL], [_FULL] * 3, ["chunked_attention"] * 2,
    [_FULL, None], "full_attention", [_FULL, "attention"],
)  # fmt: skip
_NAMES = ("silu", "gelu", "relu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "swish", "relu2", "tanh")
_WINDOWS, _CAPS, _SHARES = (8, 4, 16, 1, 64, None, 0), (1.0, 3, 50.0, None, 0.0), (0.25, 0.5, 1.0, 0, 2)
_WIDTHS, _LATENTS = (16, 32, 48, 64, 7), (4, 6, 8, 12, 16, None)

LIKELY: dict[str, Sequence[Any]] = {
    "rope_parameters": _ROPE, "rope_scaling": _ROPE, "layer_types": _TYPES, "hidden_act": _NAMES,
    "hidden_activation": _NAMES, "activation_function": _NAMES, "sliding_window": _WINDOWS,
    "use_sliding_window": (True, False), "max_window_layers": (0, 1, 2), "tie_word_embeddings": (True, False, ABSENT),
    "attention_bias": (True, False), "mlp_bias": (True, False), "attn_logit_softcapping": _CAPS,
    "final_logit_softcapping": _CAPS, "query_pre_attn_scalar": (4, 8, 16, 8.5), "rope_theta": (10, 50.0, 1e4, 1e6),
    "rope_local_base_freq": (10, 50.0, 1e4), "rotary_emb_base": (10, 50.0, 1e4), "rotary_pct": _SHARES,
    "partial_rotary_factor": _SHARES, "original_max_position_embeddings": (8, 16, 64, 16.0),
    "max_position_embeddings": (8, 16, 64, 128), "n_positions": (8, 16, 64), "max_seq_len": (8, 16, 64),
    "seq_length": (8, 64), "hidden_size": _WIDTHS, "n_embd": _WIDTHS, "d_model": _WIDTHS, "n_embed": (32, 16, None),
    "intermediate_size": _WIDTHS, "moe_intermediate_size": _WIDTHS, "n_inner": (64, 128, None),
    "vocab_size": (96, 64, 97),
    "num_hidden_layers": (1, 2, 3), "n_layer": (1, 2, 3), "n_layers": (1, 2, 3), "num_attention_heads": (1, 2, 4, 8, 3),
    "n_head": (1, 2, 4, 8, 3), "n_heads": (1, 2, 4, 8, 3), "num_key_value_heads": (1, 2, 4, 3, None),
    "head_dim": (4, 8, 12, 6, 5, None), "rms_norm_eps": (1e-3, 1e-5, 0.1), "layer_norm_eps": (1e-3, 0.1),
    "layer_norm_epsilon": (1e-3, 0.1),
    "no_rope_layers": ([0, 1], [1, 1], [0, 0], [True, False], [1], [1, 0, 1], [2, 0]),
    "no_rope_layer_interval": (1, 2, 4), "sliding_window_pattern": (1, 2, 3), "num_experts": (2, 4, 5),
    "num_local_experts": (2, 4, 5), "n_routed_experts": (8, 4), "num_experts_per_tok": (1, 2, 3),
    "norm_topk_prob": (True, False), "mlp_only_layers": ([0], [1], [0, 1], [5]), "decoder_sparse_step": (1, 2, 3),
    "n_group": (1, 2, 4), "topk_group": (1, 2), "routed_scaling_factor": (1.0, 2.5, 0.3),
    "first_k_dense_replace": (0, 1, 2),
    "n_shared_experts": (0, 1, 2), "q_lora_rank": _LATENTS, "kv_lora_rank": _LATENTS, "qk_nope_head_dim": _LATENTS,
    "qk_rope_head_dim": _LATENTS, "v_head_dim": _LATENTS, "qk_head_dim": (14,), "swiglu_limit": (7.0, 2.0),
    "swiglu_alpha": (1.702, 1.0), "use_parallel_residual": (True, False), "is_causal": (True, False),
    "scale_attn_by_inverse_layer_idx": (True, False), "scale_attn_weights": (True, False),
    "reorder_and_upcast_attn": (True, False), "attn_config": (
        {}, {"softmax_scale": 0.7}, {"softmax_scale": 0}, {"alibi": False}, {"clip_qkv": 0.5}, {"qk_ln": True},
        {"alibi_bias_max": 16}, {"prefix_lm": True}, {"attn_impl": "triton"}, {"attn_pdrop": 1}, {"new": 1}, None,
    ),
    "pad_token_id": (0, 1, None), "eos_token_id": (1, [1, 2], None), "dtype": ("float32", "bfloat16"),
    "torch_dtype": ("float32", "float16"), "architectures": (["LlamaForCausalLM"],), "pruned_heads": ({}, {"0": [1]}),
    "quantization_config": (None, {"bits": 4}), "use_bidirectional_attention": (True, False, None),
    "apply_residual_connection_post_layernorm": (True, False), "logit_scale": (None, 2.0), "no_bias": (True, False),
    "rotary_dim": (2, 4, 6, 8, 16, 3), "ffn_dim": _WIDTHS, "word_embed_proj_dim": (32, 16, None),
    "do_layer_norm_before": (True, False), "_remove_final_layer_norm": (True, False),
    "layer_norm_elementwise_affine": (True, False), "enable_bias": (True, False), "qkv_bias": (True, False),
    "shared_expert_intermediate_size": (24, 48, 72, 36, 12), "expansion_ratio": (4, 2),
    "norm_type": ("low_precision_layernorm", "rmsnorm"),
}  # fmt: skip
"""{field: values that published checkpoints have, and near ones}"""

BESIDE = {
    *HARMLESS, "rope_theta", "rope_scaling", "partial_rotary_factor", "original_max_position_embeddings", "layer_types",
    "sliding_window", "head_dim", "torch_dtype", "attention_chunk_size", "unknown_field", "temperature",
}  # fmt: skip
"""Fields that any config.json may have, and code beneath a class may ask for."""
SIZES = (
    "hidden_size", "n_embd", "d_model", "intermediate_size", "moe_intermediate_size", "vocab_size", "num_hidden_layers",
    "n_layer", "n_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "n_positions", "n_inner",
    "tie_word_embeddings", "attention_bias", "mlp_bias", "num_experts", "num_local_experts", "n_routed_experts",
    "kv_lora_rank", "q_lora_rank", "v_head_dim", "n_shared_experts", "first_k_dense_replace", "mlp_only_layers",
    "num_layers", "num_heads", "num_kv_heads", "ffn_hidden_size", "attention_out_bias", "bias", "use_bias",
    "use_qkv_bias", "multi_query", "new_decoder_architecture", "parallel_attn", "use_parallel_residual",
    "ffn_dim", "rotary_dim", "word_embed_proj_dim", "enable_bias", "qkv_bias", "layer_norm_elementwise_affine",
    "do_layer_norm_before", "shared_expert_intermediate_size",
)  # fmt: skip
"""Fields that say which tensors there are, and their shapes."""


@dataclass(frozen=True)
class Variant:
    """A config.json that differs from a base in some fields.

    Args:
      family: model_type.
      base: the name of a case of the oracle, whose values are the base.
      changes: ((field, value as JSON or ABSENT), ...).
      misfit: whether the tensors are those of the base.
    """

    family: str
    base: str
    changes: tuple[tuple[str, str], ...]
    misfit: bool = False

    @property
    def name(self) -> str:
        """Returns a name that is unique, and says what is changed."""
        tensors = ", tensors of the base" if self.misfit else ""
        return f"{self.base}: {', '.join(f'{field}={value}' for field, value in self.changes)}{tensors}"

    def values(self) -> dict[str, Any]:
        """Returns the object of config.json."""
        values = base_values(self.base)
        for field, value in self.changes:
            values.pop(field, None)
            if value != ABSENT:
                values[field] = json.loads(value)
        return values


def base_values(name: str) -> dict[str, Any]:
    """Returns the config.json of a case, of two layers."""
    case = next(case for case in CASES if case.name == name)
    return json.loads(json.dumps(case.values)) | {"model_type": case.family}


@cache
def fields_of(family: str) -> tuple[str, ...]:
    """Returns the fields that a class declares or reads, and those of BESIDE."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from parity.oracle.imports_class import fields_read

    declared = {each.name for each in dataclasses.fields(CONFIG_MAPPING[family])}
    read = fields_read(base_values(bases(family)[0]))
    return tuple(sorted((declared | read | BESIDE | FAMILIES[family].aliases.keys()) - {"model_type"}))


def bases(family: str) -> list[str]:
    """Returns the names of the cases that variants of a family start from: the first, and the last."""
    names = [case.name for case in CASES if case.family == family]
    return list(dict.fromkeys([names[0], names[-1]]))


def variants(count: int, family: str = "") -> list[Variant]:
    """Draws variants, the same ones each time: those of fewer are the first ones of each family.

    Args:
      count: of all families together.
      family: only those of this model_type.
    """
    share = -(-count // len(FAMILIES))
    drawn = {name: _draw(name, share) for name in FAMILIES if family in ("", name)}
    turns = [(name, i) for i in range(share) for name in FAMILIES][:count]
    return [drawn[name][i] for name, i in turns if name in drawn]


def _draw(family: str, count: int) -> list[Variant]:
    generator, drawn = random.Random(family), {}
    while len(drawn) < count:
        variant = _one(generator, family)
        drawn[variant.name] = variant
    return list(drawn.values())


def _one(generator: random.Random, family: str) -> Variant:
    misfit = generator.random() < MISFITS
    fields = [name for name in fields_of(family) if name in SIZES] if misfit else _weighted(family)
    chosen = {generator.choice(fields) for _ in range(2 if generator.random() < PAIRS else 1)}
    changes = tuple((name, _text(_value(generator, likely(family, name)))) for name in sorted(chosen))
    return Variant(family, generator.choice(bases(family)), changes, misfit)


def _weighted(family: str) -> list[str]:
    """Returns the fields of a family. One that has likely values counts four times: it changes the function."""
    return [name for name in fields_of(family) for _ in range(4 if likely(family, name) else 1)]


def likely(family: str, name: str) -> list[Any]:
    """Returns the likely values of a field, those of the family's examples among them."""
    shown = [values[name] for values in FAMILIES[family].examples.values() if name in values]
    return [*LIKELY.get(name, ()), *(value for i, value in enumerate(shown) if value not in shown[:i])]


def _value(generator: random.Random, values: Sequence[Any]) -> Any:
    return generator.choice(values) if values and generator.random() < 0.6 else generator.choice(ODD)


def _text(value: Any) -> str:
    return ABSENT if value is ABSENT or value == ABSENT else json.dumps(value)
