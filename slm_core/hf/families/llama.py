"""Llama (Touvron et al. 2023, https://arxiv.org/abs/2302.13971; Llama 3, https://arxiv.org/abs/2407.21783), and so
SmolLM and SmolLM2."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.config.widths import rotated
from slm_core.hf.examples import TINY, TINY_LLAMA3
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rope import read_rope, rope_fields, rope_parameters, whole_heads, write_rope
from slm_core.hf.rules import TRANSPOSED, Layout, Rule, linear, norm, tensor, then

GATED = {
    "silu": ("swiglu", "erf"), "swish": ("swiglu", "erf"), "gelu": ("geglu", "erf"),
    "gelu_pytorch_tanh": ("geglu", "tanh"), "gelu_new": ("geglu", "tanh"),
}  # fmt: skip
"""{hidden_act: (mlp.kind, mlp.gelu)}"""
FIELDS = {
    "vocab_size": whole(32000),
    "hidden_size": whole(4096),
    "intermediate_size": whole(11008),
    "num_hidden_layers": whole(32),
    "num_attention_heads": whole(32),
    "num_key_value_heads": whole(None),
    "head_dim": whole(None),
    "hidden_act": word("silu"),
    "max_position_embeddings": whole(2048),
    "rms_norm_eps": number(1e-6),
    "tie_word_embeddings": flag(False),
    "attention_bias": flag(False),
    "mlp_bias": flag(False),
    **rope_fields(),
}
"""Fields of Llama and of the families that descend from it, which change some defaults."""
NEUTRAL = ("is_llama_config", "rope_interleaved")
"""Fields that SmolLM2's training code left in its checkpoints."""


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    model = read_model(fields)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def read_model(
    fields: Fields,
    activation: str = "hidden_act",
    position: Position | None = None,
    activations: Mapping[str, tuple[str, str]] = GATED,
    norm: Norm | None = None,
) -> Model:
    """Reads the fields that the families that descend from Llama share.

    Args:
      activation: the field that names the activation of the MLP.
      position: of a family that reads its rotation otherwise.
      activations: {name: (mlp.kind, mlp.gelu)}, of a family whose MLPs have no gate.
      norm: of a family without RMSNorm.
    """
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    kind, gelu = activations[fields.only(activation, *activations)]
    return Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=Attention(
            n_heads=heads,
            n_kv_heads=fields.get("num_key_value_heads") or heads,
            head_dim=fields.get("head_dim") or max(1, width // heads),
            bias=fields.get("attention_bias"),
        ),
        position=position or read_position(fields),
        norm=norm or Norm(kind="rmsnorm", eps=fields.get("rms_norm_eps")),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("intermediate_size"), bias=fields.get("mlp_bias")),
    )


def read_position(fields: Fields) -> Position:
    """Reads the rotation of whole heads."""
    rope = rope_parameters(fields)
    whole_heads(rope)
    return Position(**read_rope(rope))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {"attention_bias": attention_bias(layer), "mlp_bias": layer.mlp.bias}


def write_model(
    config: Config, activations: Mapping[str, tuple[str, str]] = GATED, layer: LayerSpec | None = None
) -> dict[str, Any]:
    """Writes the fields that the families that descend from Llama share.

    Args:
      activations: those of `read_model`.
      layer: whose attention and MLP are written; None: the first.
    """
    layer = layer or layer_specs(config.model)[0]
    return {
        "hidden_size": layer.d_model,
        "num_hidden_layers": layer.n_layers,
        "num_attention_heads": layer.attention.n_heads,
        "num_key_value_heads": layer.attention.n_kv_heads,
        "head_dim": layer.attention.head_dim,
        "intermediate_size": layer.mlp.hidden,
        "hidden_act": hidden_act(layer.mlp, activations),
        "rms_norm_eps": layer.norm.eps,
        "rope_parameters": write_rope(layer, config.data.seq_len),
        "max_position_embeddings": config.data.seq_len,
        "tie_word_embeddings": layer.tie_embeddings,
    }


def hidden_act(mlp: Mlp, activations: Mapping[str, tuple[str, str]] = GATED) -> str:
    """Returns the name of the activation of an MLP; the first name for one that is not among them."""
    names = {value: hf_name for hf_name, value in reversed(list(activations.items()))}
    return names.get((mlp.kind, mlp.gelu), next(iter(activations)))


def attention_bias(layer: LayerSpec) -> bool:
    """Returns whether any projection of a layer's attention has a bias. The class has one in all of them or in none."""
    return bool(layer.attention.bias or layer.attention.output_bias)


GATED_MLP = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
PLAIN_MLP = {name: name for name in ("up_proj", "down_proj")}
"""{linear layer of an MLP: its name in a checkpoint}"""
NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


Turn = Callable[[int, int, int], Layout]
"""Makes, of heads, their width and the features that turn, the layout of what queries or keys are in a checkpoint."""


def rules(
    config: Config,
    norms: Mapping[str, str] = NORMS,
    turn: Turn | None = None,
    mlp: Mapping[str, str] = GATED_MLP,
) -> Iterator[Rule]:
    """Yields the rules of a model.

    Args:
      norms: {norm of a layer: its name in a checkpoint}.
      turn: the layout of queries and keys, such as `half_split`; None: as here.
      mlp: {linear layer of an MLP: its name in a checkpoint}.
    """
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i, turn)
        yield from mlp_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp", mlp)
        yield from norm_rules(i, norms, layer.norm.bias)


def outer_rules(config: Config) -> Iterator[Rule]:
    """Yields the rules of the tensors outside the layers."""
    yield from tensor("embed.weight", "model.embed_tokens.weight")
    if config.model.norm.weight != "none":
        yield from norm("final_norm", "model.norm", config.model.norm.bias)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


def attention_rules(layer: LayerSpec, i: int, turn: Turn | None = None, output: str = "o_proj") -> Iterator[Rule]:
    """Yields the rules of the attention of layer i.

    Args:
      turn: as in `rules`.
      output: the name of the output projection in a checkpoint.
    """
    path, hf_path, bias = f"layers.{i}.attention", f"model.layers.{i}.self_attn", layer.attention.bias
    width = layer.attention.head_dim
    for name, heads in {"q_proj": layer.attention.n_heads, "k_proj": layer.attention.n_kv_heads}.items():
        layout = then(TRANSPOSED, turn(heads, width, rotated(layer))) if turn else TRANSPOSED
        yield from linear(f"{path}.{name}", f"{hf_path}.{name}", bias, layout)
    yield from linear(f"{path}.v_proj", f"{hf_path}.v_proj", bias)
    yield from linear(f"{path}.o_proj", f"{hf_path}.{output}", layer.attention.output_bias)
    if layer.attention.qk_norm == "rmsnorm" and layer.norm.weight != "none":
        for name in ("q_norm", "k_norm"):
            yield from norm(f"{path}.{name}.norm", f"{hf_path}.{name}")


def mlp_rules(layer: LayerSpec, path: str, hf_path: str, names: Mapping[str, str] = GATED_MLP) -> Iterator[Rule]:
    """Yields the rules of a dense MLP, whose linear layers are {name: hf_name}."""
    for name, hf_name in names.items():
        yield from linear(f"{path}.{name}", f"{hf_path}.{hf_name}", layer.mlp.bias)


def norm_rules(i: int, names: Mapping[str, str], bias: bool = False) -> Iterator[Rule]:
    """Yields the rules of the norms of layer i, {name: hf_name}."""
    for name, hf_name in names.items():
        yield from norm(f"layers.{i}.{name}", f"model.layers.{i}.{hf_name}", bias)


EXAMPLES = {
    "": TINY | {"rms_norm_eps": 1e-3},
    "llama3 scaling, tied, biases": TINY | {
        "rope_parameters": TINY_LLAMA3, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
        "head_dim": 12,
    },
}  # fmt: skip

LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    neutral=NEUTRAL,
    examples=EXAMPLES,
)
