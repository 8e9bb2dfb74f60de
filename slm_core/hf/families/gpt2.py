"""GPT-2 (Radford et al. 2019, Language models are unsupervised multitask learners)."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.families.llama import hidden_act
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rules import SAME, Rule, fused, linear, norm, split, tensor

ACTIVATIONS = {
    "gelu_new": ("gelu", "tanh"), "gelu_pytorch_tanh": ("gelu", "tanh"), "gelu_fast": ("gelu", "tanh"),
    "gelu": ("gelu", "erf"), "relu": ("relu", "erf"), "relu2": ("relu2", "erf"),
}  # fmt: skip
"""{activation_function: (mlp.kind, mlp.gelu)}"""
FIELDS = {
    "vocab_size": whole(50257),
    "n_embd": whole(768),
    "n_layer": whole(12),
    "n_head": whole(12),
    "n_inner": whole(None),
    "n_positions": whole(1024),
    "activation_function": word("gelu_new"),
    "layer_norm_epsilon": number(1e-5),
    "tie_word_embeddings": flag(True),
    "scale_attn_weights": flag(True),
    "scale_attn_by_inverse_layer_idx": flag(False),
}
ALIASES = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}  # fmt: skip
NEUTRAL = (
    "attn_pdrop", "embd_pdrop", "n_ctx", "reorder_and_upcast_attn", "resid_pdrop", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
)  # fmt: skip
"""Dropout, heads of other tasks, and the order of a product. The class does not read n_ctx."""


def read(fields: Fields) -> Config:
    fields.divides("n_head", "n_embd")
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("scale_attn_weights", True)
    return read_model(fields, Attention(n_heads=fields.get("n_head"), bias=True))


def read_model(fields: Fields, attention: Attention) -> Config:
    """Reads what the classes of GPT-BigCode and GPT-J share with GPT-2's."""
    width = fields.get("n_embd")
    kind, gelu = ACTIVATIONS[fields.only("activation_function", *ACTIVATIONS)]
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=attention,
        position=Position(kind="learned"),
        norm=Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_epsilon")),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("n_inner") or 4 * width, bias=True),
    )
    return imported(model, [{}] * fields.get("n_layer"), fields.get("n_positions"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return {
        "n_embd": layer.d_model,
        "n_layer": layer.n_layers,
        "n_head": layer.attention.n_heads,
        "n_inner": layer.mlp.hidden,
        "n_positions": config.data.seq_len,
        "activation_function": hidden_act(layer.mlp, ACTIVATIONS),
        "layer_norm_epsilon": layer.norm.eps,
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    model = config.model
    yield from tensor("embed.weight", "transformer.wte.weight")
    yield from tensor("position.weight", "transformer.wpe.weight")
    for i in range(model.n_layers):
        path, hf_path = f"layers.{i}", f"transformer.h.{i}"
        parts = [f"{path}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        yield from norm(f"{path}.attention_norm", f"{hf_path}.ln_1", bias=True)
        # The class's Conv1D stores [in, out], as we do.
        yield from fused(parts, f"{hf_path}.attn.c_attn", split([model.d_model] * 3), bias=True)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.attn.c_proj", True, SAME)
        yield from norm(f"{path}.mlp_norm", f"{hf_path}.ln_2", bias=True)
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.c_fc", True, SAME)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.c_proj", True, SAME)
    yield from norm("final_norm", "transformer.ln_f", bias=True)
    if not model.tie_embeddings:
        yield from linear("head", "lm_head")


EXAMPLES = {
    "": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}  # fmt: skip

GPT2 = Family(
    "gpt2", "GPT2LMHeadModel", FIELDS, read, write, rules, prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"), inputs_first=("c_attn.weight", "c_proj.weight", "c_fc.weight"),
    aliases=ALIASES, neutral=NEUTRAL, examples=EXAMPLES, float64=True,
)  # fmt: skip
