"""BLOOM (BigScience Workshop 2022, https://arxiv.org/abs/2211.05100): GPT-2 with ALiBi in place of positions, and a
norm behind the embedding."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.rules import TRANSPOSED, Rule, fused, linear, norm, split_heads, tensor, then


def read(fields: Fields) -> Config:
    fields.only("apply_residual_connection_post_layernorm", False)
    newer = {"n_embed": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
    names = [old if fields.get(old) else new for old, new in newer.items()]
    width, heads, layers = map(fields.need, names)
    fields.divides(names[1], names[0])
    fields.only("n_inner", 4 * width)
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings", True),
        embed_norm=True,
        attention=Attention(n_heads=heads, bias=True),
        position=Position(kind="alibi"),
        norm=Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_epsilon", 1e-5)),
        mlp=Mlp(kind="gelu", gelu="tanh", hidden=4 * width, bias=True),
    )
    return imported(model, [{}] * layers, fields.get("seq_length", 2048))


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


BLOOM = Family("bloom", "BloomForCausalLM", read, write, rules, prefix="transformer.")
