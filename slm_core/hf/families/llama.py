"""Llama (Touvron et al. 2023, https://arxiv.org/abs/2302.13971; Llama 3, https://arxiv.org/abs/2407.21783), and so
SmolLM and SmolLM2."""

from collections.abc import Iterator, Mapping
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.errors import UserError
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.rope import read_rope, rope_parameters, write_rope
from slm_core.hf.rules import Rule, linear, norm, tensor

GATED = {
    "silu": ("swiglu", "erf"), "swish": ("swiglu", "erf"), "gelu": ("geglu", "erf"),
    "gelu_pytorch_tanh": ("geglu", "tanh"), "gelu_new": ("geglu", "tanh"),
}  # fmt: skip
"""{hidden_act: (mlp.kind, mlp.gelu)}"""


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    model = read_model(fields)
    return imported(model, [{}] * fields.need("num_hidden_layers"), fields.need("max_position_embeddings"))


def read_model(
    fields: Fields, *, tied: bool = False, eps: float = 1e-6, theta: float = 10_000.0, head_dim: int = 0
) -> Model:
    """Reads the fields that the families that descend from Llama share.

    Args:
      tied, eps, theta, head_dim: the class's value of a field that is absent; head_dim 0: the width over heads.
    """
    width, heads = fields.need("hidden_size"), fields.need("num_attention_heads")
    rope = rope_parameters(fields)
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(
            f"config.json: partial_rotary_factor={rope['partial_rotary_factor']} cannot be expressed: the class turns"
            " whole heads, so only 1.0"
        )
    return Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings", tied),
        attention=Attention(
            n_heads=heads,
            n_kv_heads=fields.get("num_key_value_heads", heads),
            head_dim=fields.get("head_dim", head_dim or width // heads),
            bias=fields.get("attention_bias", False),
        ),
        position=Position(**read_rope(rope, fields.need("max_position_embeddings"), theta)),
        norm=Norm(kind="rmsnorm", eps=fields.get("rms_norm_eps", eps)),
        mlp=read_mlp(fields),
    )


def read_mlp(fields: Fields, name: str = "hidden_act", default: str = "silu") -> Mlp:
    """Reads a gated MLP, whose activation the field `name` says."""
    kind, gelu = GATED[fields.only(name, *GATED, default=default)]
    return Mlp(kind=kind, gelu=gelu, hidden=fields.need("intermediate_size"), bias=fields.get("mlp_bias", False))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {"attention_bias": attention_bias(layer), "mlp_bias": layer.mlp.bias}


def write_model(config: Config) -> dict[str, Any]:
    """Writes the fields that the families that descend from Llama share."""
    layer = layer_specs(config.model)[0]
    return {
        "hidden_size": layer.d_model,
        "num_hidden_layers": layer.n_layers,
        "num_attention_heads": layer.attention.n_heads,
        "num_key_value_heads": layer.attention.n_kv_heads,
        "head_dim": layer.attention.head_dim,
        "intermediate_size": layer.mlp.hidden,
        "hidden_act": hidden_act(layer.mlp),
        "rms_norm_eps": layer.norm.eps,
        "rope_parameters": write_rope(layer, config.data.seq_len),
        "max_position_embeddings": config.data.seq_len,
        "tie_word_embeddings": layer.tie_embeddings,
    }


def hidden_act(mlp: Mlp) -> str:
    """Returns the name of the activation of a gated MLP; "silu" for any other."""
    names = {value: hf_name for hf_name, value in reversed(GATED.items())}
    return names.get((mlp.kind, mlp.gelu), "silu")


def attention_bias(layer: LayerSpec) -> bool:
    """Returns whether any projection of a layer's attention has a bias. The class has one in all of them or in none."""
    return bool(layer.attention.bias or layer.attention.output_bias)


NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


def rules(config: Config, norms: Mapping[str, str] = NORMS) -> Iterator[Rule]:
    """Yields the rules of a model whose layers have these norms, {name: hf_name}."""
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i)
        yield from mlp_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, norms)


def outer_rules(config: Config) -> Iterator[Rule]:
    """Yields the rules of the tensors outside the layers."""
    yield from tensor("embed.weight", "model.embed_tokens.weight")
    yield from norm("final_norm", "model.norm")
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


def attention_rules(layer: LayerSpec, i: int) -> Iterator[Rule]:
    """Yields the rules of the attention of layer i."""
    path, hf_path, bias = f"layers.{i}.attention", f"model.layers.{i}.self_attn", layer.attention.bias
    for name in ("q_proj", "k_proj", "v_proj"):
        yield from linear(f"{path}.{name}", f"{hf_path}.{name}", bias)
    yield from linear(f"{path}.o_proj", f"{hf_path}.o_proj", layer.attention.output_bias)
    if layer.attention.qk_norm == "rmsnorm":
        for name in ("q_norm", "k_norm"):
            yield from norm(f"{path}.{name}.norm", f"{hf_path}.{name}")


def mlp_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    """Yields the rules of a gated MLP."""
    for name in ("gate_proj", "up_proj", "down_proj"):
        yield from linear(f"{path}.{name}", f"{hf_path}.{name}", layer.mlp.bias)


def norm_rules(i: int, names: Mapping[str, str]) -> Iterator[Rule]:
    """Yields the rules of the norms of layer i, {name: hf_name}."""
    for name, hf_name in names.items():
        yield from norm(f"layers.{i}.{name}", f"model.layers.{i}.{hf_name}")


LLAMA = Family("llama", "LlamaForCausalLM", read, write, rules)
