"""GPT-2 (Radford et al. 2019, Language models are unsupervised multitask learners)."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.rules import SAME, Rule, fused, linear, norm, split, tensor

ACTIVATIONS = {
    "gelu_new": ("gelu", "tanh"), "gelu_pytorch_tanh": ("gelu", "tanh"), "gelu_fast": ("gelu", "tanh"),
    "gelu": ("gelu", "erf"), "relu2": ("relu2", "erf"),
}  # fmt: skip
"""{activation_function: (mlp.kind, mlp.gelu)}"""


def read(fields: Fields) -> Config:
    width = fields.need("n_embd")
    fields.divides("n_head", "n_embd")
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        fields.only(name, False)
    fields.only("scale_attn_weights", True)
    kind, gelu = ACTIVATIONS[fields.only("activation_function", *ACTIVATIONS)]
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings", True),
        attention=Attention(n_heads=fields.need("n_head"), bias=True),
        position=Position(kind="learned"),
        norm=Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_epsilon", 1e-5)),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("n_inner", 4 * width), bias=True),
    )
    return imported(model, [{}] * fields.need("n_layer"), fields.get("n_positions") or fields.need("n_ctx"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    activations = {value: hf_name for hf_name, value in reversed(ACTIVATIONS.items())}
    return {
        "n_embd": layer.d_model,
        "n_layer": layer.n_layers,
        "n_head": layer.attention.n_heads,
        "n_inner": layer.mlp.hidden,
        "n_positions": config.data.seq_len,
        "activation_function": activations.get((layer.mlp.kind, layer.mlp.gelu), "gelu_new"),
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


GPT2 = Family(
    "gpt2", "GPT2LMHeadModel", read, write, rules, prefix="transformer.", ignored=(".attn.bias", ".attn.masked_bias")
)
