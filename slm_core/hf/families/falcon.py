"""Falcon (Almazrouei et al. 2023, https://arxiv.org/abs/2311.16867): RoPE, parallel blocks, and one or a few heads of
keys and values."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import TINY_LLAMA3, TINY_YARN
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import attention_bias, hidden_act, read_position
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rope import rope_fields, write_rope
from slm_core.hf.rules import TRANSPOSED, Rule, fused, linear, norm, split_heads, tensor, then

FIELDS = {
    "vocab_size": whole(65024),
    "hidden_size": whole(4544),
    "num_hidden_layers": whole(32),
    "num_attention_heads": whole(71),
    "num_kv_heads": whole(None),
    "ffn_hidden_size": whole(None),
    "max_position_embeddings": whole(2048),
    "num_ln_in_parallel_attn": whole(None),
    "layer_norm_epsilon": number(1e-5),
    "activation": word("gelu"),
    "alibi": flag(False),
    "new_decoder_architecture": flag(False),
    "multi_query": flag(True),
    "parallel_attn": flag(True),
    "bias": flag(False),
    "tie_word_embeddings": flag(True),
    **rope_fields(),
}
ALIASES = {"n_embed": "hidden_size"}
NEUTRAL = ("apply_residual_connection_post_layernorm", "hidden_dropout")
"""Dropout, and a setting of BLOOM that the class does not read."""
NORMS = {
    "pre": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "parallel": {"attention_norm": "ln_attn", "mlp_norm": "ln_mlp"},
    "parallel_shared": {"attention_norm": "input_layernorm"},
}
"""{norm.placement: {norm of a layer: its name in a checkpoint}}"""


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    fields.only("alibi", False)  # the class rounds its biases to bfloat16
    width, heads, bias = fields.get("hidden_size"), fields.get("num_attention_heads"), fields.get("bias")
    kind, gelu = ACTIVATIONS[fields.only("activation", *ACTIVATIONS)]
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=Attention(n_heads=heads, n_kv_heads=_read_kv_heads(fields), bias=bias),
        position=read_position(fields),
        norm=Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_epsilon"), placement=_read_placement(fields)),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("ffn_hidden_size") or 4 * width, bias=bias),
    )
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def _read_kv_heads(fields: Fields) -> int:
    heads = fields.get("num_attention_heads")
    if fields.get("new_decoder_architecture"):
        return fields.get("num_kv_heads") or heads
    if fields.get("multi_query"):
        return 1
    fields.only("num_kv_heads", None, heads)
    return heads


def _read_placement(fields: Fields) -> str:
    """Reads norm.placement. Blocks of the new architecture are parallel, and have two norms unless it says one."""
    if fields.get("new_decoder_architecture"):
        fields.only("parallel_attn", True)
        return "parallel_shared" if fields.only("num_ln_in_parallel_attn", None, 1, 2) == 1 else "parallel"
    fields.only("num_ln_in_parallel_attn", None, 1)
    return "parallel_shared" if fields.get("parallel_attn") else "pre"


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    placement = layer.norm.placement
    return {
        "hidden_size": layer.d_model,
        "num_hidden_layers": layer.n_layers,
        "num_attention_heads": layer.attention.n_heads,
        "num_kv_heads": layer.attention.n_kv_heads,
        "ffn_hidden_size": layer.mlp.hidden,
        "max_position_embeddings": config.data.seq_len,
        "new_decoder_architecture": placement != "pre",
        "num_ln_in_parallel_attn": {"parallel": 2, "parallel_shared": 1}.get(placement),
        "multi_query": layer.attention.n_kv_heads == 1,
        "parallel_attn": placement != "pre",
        "layer_norm_epsilon": layer.norm.eps,
        "activation": hidden_act(layer.mlp, ACTIVATIONS),
        "bias": attention_bias(layer) or layer.mlp.bias,
        "tie_word_embeddings": layer.tie_embeddings,
        "rope_parameters": write_rope(layer, config.data.seq_len),
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "transformer.word_embeddings.weight")
    for i, layer in enumerate(layer_specs(config.model)):
        path, hf_path, attention, bias = f"layers.{i}", f"transformer.h.{i}", layer.attention, layer.mlp.bias
        parts = [f"{path}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        group = attention.n_heads // attention.n_kv_heads * attention.head_dim
        layout = then(TRANSPOSED, split_heads(attention.n_kv_heads, [group, attention.head_dim, attention.head_dim]))
        for name, hf_name in NORMS[layer.norm.placement].items():
            yield from norm(f"{path}.{name}", f"{hf_path}.{hf_name}", bias=True)
        yield from fused(parts, f"{hf_path}.self_attention.query_key_value", layout, bias)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.self_attention.dense", bias)
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.dense_h_to_4h", bias)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.dense_4h_to_h", bias)
    yield from norm("final_norm", "transformer.ln_f", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


TINY_FALCON = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
EXAMPLES = {
    "": TINY_FALCON,
    "sequential, all heads, yarn, untied, biases": TINY_FALCON | {
        "parallel_attn": False, "multi_query": False, "rope_parameters": TINY_YARN, "tie_word_embeddings": False,
        "bias": True, "ffn_hidden_size": 48,
    },
    "two norms, groups of heads, llama3 scaling, relu2": TINY_FALCON | {
        "new_decoder_architecture": True, "num_kv_heads": 2, "rope_parameters": TINY_LLAMA3, "activation": "relu2",
        "layer_norm_epsilon": 1e-3,
    },
}  # fmt: skip

FALCON = Family(
    "falcon", "FalconForCausalLM", FIELDS, read, write, rules, prefix="transformer.", aliases=ALIASES, neutral=NEUTRAL,
    examples=EXAMPLES,
)  # fmt: skip
