"""BLOOM (BigScience Workshop 2022, https://arxiv.org/abs/2211.05100): GPT-2 with ALiBi in place of positions, and a
norm behind the embedding."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Field, Fields, flag, number, whole
from slm_core.hf.rules import TRANSPOSED, Rule, fused, linear, norm, split_heads, tensor, then

FIELDS = {
    "vocab_size": whole(250880),
    "hidden_size": whole(64),
    "n_layer": whole(2),
    "n_head": whole(8),
    "n_inner": whole(None),
    "seq_length": Field("a whole number", 2048, low=1),
    "layer_norm_epsilon": number(1e-5),
    "tie_word_embeddings": flag(True),
    "apply_residual_connection_post_layernorm": flag(False),
}
ALIASES = {"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
NEUTRAL = (
    "attention_softmax_in_fp32", "bias_dropout_fusion", "hidden_dropout", "masked_softmax_fusion", "offset_alibi",
    "skip_bias_add", "skip_bias_add_qkv", "slow_but_exact",
)  # fmt: skip
"""Dropout, and how the first code computed the same."""


def read(fields: Fields) -> Config:
    fields.only("apply_residual_connection_post_layernorm", False)
    width = fields.get("hidden_size")
    fields.divides("n_head", "hidden_size")
    fields.only("n_inner", None, 4 * width)
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        embed_norm=True,
        attention=Attention(n_heads=fields.get("n_head"), bias=True),
        position=Position(kind="alibi"),
        norm=Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_epsilon")),
        mlp=Mlp(kind="gelu", gelu="tanh", hidden=4 * width, bias=True),
    )
    return imported(model, [{}] * fields.get("n_layer"), fields.get("seq_length"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return {
        "hidden_size": layer.d_model,
        "n_layer": layer.n_layers,
        "n_head": layer.attention.n_heads,
        "seq_length": config.data.seq_len,
        "layer_norm_epsilon": layer.norm.eps,
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    heads = config.model.attention.n_heads
    layout = then(TRANSPOSED, split_heads(heads, [config.model.d_model // heads] * 3))
    yield from tensor("embed.weight", "transformer.word_embeddings.weight")
    yield from norm("embed_norm", "transformer.word_embeddings_layernorm", bias=True)
    for i in range(config.model.n_layers):
        path, hf_path = f"layers.{i}", f"transformer.h.{i}"
        parts = [f"{path}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        yield from norm(f"{path}.attention_norm", f"{hf_path}.input_layernorm", bias=True)
        yield from fused(parts, f"{hf_path}.self_attention.query_key_value", layout, bias=True)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.self_attention.dense", bias=True)
        yield from norm(f"{path}.mlp_norm", f"{hf_path}.post_attention_layernorm", bias=True)
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.dense_h_to_4h", bias=True)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.dense_4h_to_h", bias=True)
    yield from norm("final_norm", "transformer.ln_f", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


EXAMPLES = {
    "": {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "untied, six heads": {
        "vocab_size": 96, "hidden_size": 48, "n_layer": 3, "n_head": 6, "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
    },
}  # fmt: skip

BLOOM = Family(
    "bloom",
    "BloomForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    prefix="transformer.",
    aliases=ALIASES,
    neutral=NEUTRAL,
    examples=EXAMPLES,
)
