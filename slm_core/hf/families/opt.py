"""OPT (Zhang et al. 2022, https://arxiv.org/abs/2205.01068): GPT-2 with ReLU, and a table of learned positions whose
first two rows no token reads."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import attention_bias, hidden_act
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, whole, word
from slm_core.hf.rules import Layout, Rule, linear, norm, tensor

FIELDS = {
    "vocab_size": whole(50272),
    "hidden_size": whole(768),
    "num_hidden_layers": whole(12),
    "num_attention_heads": whole(12),
    "ffn_dim": whole(3072),
    "word_embed_proj_dim": whole(None),
    "max_position_embeddings": whole(2048),
    "activation_function": word("relu"),
    "enable_bias": flag(True),
    "layer_norm_elementwise_affine": flag(True),
    "do_layer_norm_before": flag(True),
    "_remove_final_layer_norm": flag(False),
    "tie_word_embeddings": flag(True),
}
NEUTRAL = ("activation_dropout", "dropout", "init_std", "layerdrop")
"""Training alone."""
EPS = 1e-5
"""Of the class's norms."""
OFFSET = 2
"""Rows of the table before that of the first position."""
NORMS = {"attention_norm": "self_attn_layer_norm", "mlp_norm": "final_layer_norm"}
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "out_proj"}
MLP = {"up_proj": "fc1", "down_proj": "fc2"}


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    width, bias, before = fields.get("hidden_size"), fields.get("enable_bias"), fields.get("do_layer_norm_before")
    fields.only("word_embed_proj_dim", None, width)
    if before:
        fields.only("_remove_final_layer_norm", False)
    affine = fields.get("layer_norm_elementwise_affine")
    kind, gelu = ACTIVATIONS[fields.only("activation_function", *ACTIVATIONS)]
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=Attention(n_heads=fields.get("num_attention_heads"), bias=bias),
        position=Position(kind="learned"),
        norm=Norm(
            kind="layernorm",
            bias=affine,
            weight="scale" if affine else "none",
            eps=EPS,
            placement="pre" if before else "post",
        ),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("ffn_dim"), bias=bias),
    )
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return {
        "hidden_size": layer.d_model,
        "num_hidden_layers": layer.n_layers,
        "num_attention_heads": layer.attention.n_heads,
        "ffn_dim": layer.mlp.hidden,
        "max_position_embeddings": config.data.seq_len,
        "activation_function": hidden_act(layer.mlp, ACTIVATIONS),
        "enable_bias": attention_bias(layer) or layer.mlp.bias,
        "layer_norm_elementwise_affine": layer.norm.weight != "none" or layer.norm.bias,
        "do_layer_norm_before": layer.norm.placement != "post",
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "model.decoder.embed_tokens.weight")
    yield from tensor("position.weight", "model.decoder.embed_positions.weight", BEHIND_OFFSET)
    for i, layer in enumerate(layer_specs(config.model)):
        path, hf_path = f"layers.{i}", f"model.decoder.layers.{i}"
        for name, hf_name in ATTENTION.items():
            yield from linear(f"{path}.attention.{name}", f"{hf_path}.self_attn.{hf_name}", layer.attention.bias)
        for name, hf_name in MLP.items():
            yield from linear(f"{path}.mlp.{name}", f"{hf_path}.{hf_name}", layer.mlp.bias)
        for name, hf_name in NORMS.items() if layer.norm.weight != "none" else ():
            yield from norm(f"{path}.{name}", f"{hf_path}.{hf_name}", layer.norm.bias)
    if config.model.norm.placement != "post" and config.model.norm.weight != "none":
        yield from norm("final_norm", "model.decoder.final_layer_norm", config.model.norm.bias)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


BEHIND_OFFSET = Layout(
    lambda arrays: [arrays[0][OFFSET:]],
    lambda arrays: [np.concatenate([np.zeros_like(arrays[0], shape=(OFFSET, *arrays[0].shape[1:])), arrays[0]])],
)
"""Leaves out the rows that no token reads. They are written as zeros."""

TINY_OPT = {
    "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
    "max_position_embeddings": 64, "pad_token_id": None,
}  # fmt: skip
EXAMPLES = {
    "": TINY_OPT,
    "norms behind, no biases, untied, gelu": TINY_OPT | {
        "num_hidden_layers": 3, "do_layer_norm_before": False, "enable_bias": False, "word_embed_proj_dim": 32,
        "tie_word_embeddings": False, "activation_function": "gelu",
    },
    "norms without parameters": TINY_OPT | {"layer_norm_elementwise_affine": False},
}  # fmt: skip

OPT = Family("opt", "OPTForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
