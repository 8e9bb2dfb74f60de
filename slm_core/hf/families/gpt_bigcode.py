"""GPT-BigCode, and so StarCoder and SantaCoder (Allal et al. 2023, https://arxiv.org/abs/2301.03988): GPT-2 with one
head of keys and values."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.hf.families import gpt2
from slm_core.hf.family import Family
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rules import TRANSPOSED, Layout, Rule, fused, linear, norm, split, split_heads, tensor, then

FIELDS = {
    "vocab_size": whole(50257),
    "n_embd": whole(768),
    "n_layer": whole(12),
    "n_head": whole(12),
    "n_inner": whole(None),
    "n_positions": whole(1024),
    "multi_query": flag(True),
    "num_key_value_heads": whole(None),
    "activation_function": word("gelu_pytorch_tanh"),
    "layer_norm_epsilon": number(1e-5),
    "tie_word_embeddings": flag(True),
    "scale_attn_weights": flag(True),
}
NEUTRAL = (
    "attention_softmax_in_fp32", "attn_pdrop", "embd_pdrop", "inference_runner", "max_batch_size",
    "max_sequence_length", "n_ctx", "pad_key_length", "pre_allocate_kv_cache", "resid_pdrop",
    "scale_attention_softmax_in_fp32", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj", "validate_runner_input",
)  # fmt: skip
"""Dropout, heads of other tasks, precision, and how the first code computed the same."""


def read(fields: Fields) -> Config:
    fields.divides("n_head", "n_embd")
    heads = fields.get("n_head")
    kv_heads = 1 if fields.get("multi_query") else heads
    if fields.given("num_key_value_heads"):
        fields.only("num_key_value_heads", kv_heads)
    scale = None if fields.get("scale_attn_weights") else 1.0
    return gpt2.read_model(fields, Attention(n_heads=heads, n_kv_heads=kv_heads, scale=scale, bias=True))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return gpt2.write(config) | {
        "multi_query": layer.attention.n_kv_heads == 1,
        "scale_attn_weights": layer.attention.scale != 1.0 or layer.attention.head_dim == 1,
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "transformer.wte.weight")
    yield from tensor("position.weight", "transformer.wpe.weight")
    for i, layer in enumerate(layer_specs(config.model)):
        path, hf_path = f"layers.{i}", f"transformer.h.{i}"
        parts = [f"{path}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        yield from norm(f"{path}.attention_norm", f"{hf_path}.ln_1", bias=True)
        yield from fused(parts, f"{hf_path}.attn.c_attn", then(TRANSPOSED, _parted(layer)), bias=True)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.attn.c_proj", bias=True)
        yield from norm(f"{path}.mlp_norm", f"{hf_path}.ln_2", bias=True)
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.c_fc", bias=True)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.c_proj", bias=True)
    yield from norm("final_norm", "transformer.ln_f", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


def _parted(layer: LayerSpec) -> Layout:
    """Returns how queries, keys and values stand in one tensor: one behind the other, or head by head."""
    attention = layer.attention
    if attention.n_kv_heads == 1:
        return split([layer.d_model, attention.head_dim, attention.head_dim])
    return split_heads(attention.n_heads, [attention.head_dim] * 3)


TINY_BIGCODE = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
EXAMPLES = {
    "": TINY_BIGCODE,
    "all heads, unscaled, untied, relu2": TINY_BIGCODE | {
        "multi_query": False, "n_inner": 48, "scale_attn_weights": False, "tie_word_embeddings": False,
        "activation_function": "relu2", "layer_norm_epsilon": 1e-3,
    },
}  # fmt: skip

GPT_BIGCODE = Family(
    "gpt_bigcode", "GPTBigCodeForCausalLM", FIELDS, read, write, rules, prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"), aliases=gpt2.ALIASES, neutral=NEUTRAL, examples=EXAMPLES,
)  # fmt: skip
