"""MPT (MosaicML 2023, Introducing MPT-7B: a new standard for open-source, commercially usable LLMs): ALiBi, and no bias
anywhere."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, nested, number, whole, word
from slm_core.hf.rules import TRANSPOSED, Rule, fused, linear, norm, split, tensor, then

EXPANSION = 4
"""Inner width of an MLP over d_model, whatever expansion_ratio is."""
FIELDS = {
    "vocab_size": whole(50368),
    "d_model": whole(2048),
    "n_heads": whole(16),
    "n_layers": whole(24),
    "expansion_ratio": whole(EXPANSION),
    "max_seq_len": whole(2048),
    "layer_norm_epsilon": number(1e-5),
    "tie_word_embeddings": flag(True),
    "attn_config": nested(),
    "no_bias": flag(True),
    "norm_type": word("low_precision_layernorm"),
    "logit_scale": number(None),
}
ALIASES = {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
NEUTRAL = (
    "emb_pdrop", "embedding_fraction", "init_config", "init_device", "learned_pos_emb", "resid_pdrop",
    "tokenizer_name", "verbose",
)  # fmt: skip
"""Dropout, the scale of a gradient, and bookkeeping. ALiBi takes the place of learned positions."""
ATTENTION_FIELDS = {
    "attn_type": word("multihead_attention"),
    "softmax_scale": number(None),
    "alibi": flag(True),
    "alibi_bias_max": whole(8),
    "clip_qkv": number(None),
    "qk_ln": flag(False),
    "prefix_lm": flag(False),
    "attn_uses_sequence_id": flag(False),
}
"""The fields of attn_config."""


def read(fields: Fields) -> Config:
    fields.divides("n_heads", "d_model")
    fields.only("expansion_ratio", EXPANSION)
    fields.only("no_bias", True)
    fields.only("norm_type", "low_precision_layernorm", "layernorm")
    fields.only("logit_scale", None)
    width = fields.get("d_model")
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=Attention(n_heads=fields.get("n_heads"), scale=_read_scale(fields)),
        position=Position(kind="alibi"),
        norm=Norm(kind="layernorm", eps=fields.get("layer_norm_epsilon")),
        mlp=Mlp(kind="gelu", gelu="erf", hidden=EXPANSION * width),
    )
    return imported(model, [{}] * fields.get("n_layers"), fields.get("max_seq_len"))


def _read_scale(fields: Fields) -> float | None:
    """Reads attention.scale. Raises UserError for any other attention than the class has."""
    attention = fields.section("attn_config", ATTENTION_FIELDS, ("attn_impl", "attn_pdrop", "tie_word_embeddings"))
    attention.only("attn_type", "multihead_attention")
    attention.only("alibi", True)
    attention.only("alibi_bias_max", 8)
    attention.only("clip_qkv", None)
    for name in ("qk_ln", "prefix_lm", "attn_uses_sequence_id"):
        attention.only(name, False)
    return attention.get("softmax_scale")


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return {
        "d_model": layer.d_model,
        "n_layers": layer.n_layers,
        "n_heads": layer.attention.n_heads,
        "expansion_ratio": EXPANSION,
        "max_seq_len": config.data.seq_len,
        "layer_norm_epsilon": layer.norm.eps,
        "attn_config": {"alibi": True, "softmax_scale": layer.attention.scale},
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    layout = then(TRANSPOSED, split([config.model.d_model] * 3))
    yield from tensor("embed.weight", "transformer.wte.weight")
    for i in range(config.model.n_layers):
        path, hf_path = f"layers.{i}", f"transformer.blocks.{i}"
        parts = [f"{path}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        yield from norm(f"{path}.attention_norm", f"{hf_path}.norm_1")
        yield from fused(parts, f"{hf_path}.attn.Wqkv", layout)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.attn.out_proj")
        yield from norm(f"{path}.mlp_norm", f"{hf_path}.norm_2")
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.ffn.up_proj")
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.ffn.down_proj")
    yield from norm("final_norm", "transformer.norm_f")
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


EXAMPLES = {
    "": {"vocab_size": 96, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "untied, six heads, scale": {
        "vocab_size": 96, "d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64, "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3, "attn_config": {"softmax_scale": 0.7},
    },
}  # fmt: skip

MPT = Family(
    "mpt",
    "MptForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    prefix="transformer.",
    aliases=ALIASES,
    neutral=NEUTRAL,
    examples=EXAMPLES,
)
