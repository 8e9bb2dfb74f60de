"""Says which shape each of our weights has, without a framework, so that an import can check a checkpoint."""

from collections.abc import Callable

from slm_core.config import Config
from slm_core.config.layers import AttentionSpec, LayerSpec, MixerSpec, MlpSpec, layer_specs
from slm_core.config.widths import query_width

Shape = tuple[int, ...]

OUTER: dict[str, Callable[[Config, int], Shape]] = {
    "embed.weight": lambda config, vocab: (vocab, config.model.d_model),
    "head.weight": lambda config, vocab: (config.model.d_model, vocab),
    "head_bias": lambda config, vocab: (vocab,),
    "position.weight": lambda config, vocab: (config.data.seq_len, config.model.d_model),
}
"""{weight outside the layers: its shape}. Norms outside the layers have the width of the model."""

ATTENTION: dict[str, Callable[[LayerSpec, AttentionSpec], Shape]] = {
    "q_proj": lambda layer, a: (layer.d_model, a.n_heads * a.head_dim),
    "k_proj": lambda layer, a: (layer.d_model, a.n_kv_heads * a.head_dim),
    "v_proj": lambda layer, a: (layer.d_model, a.n_kv_heads * a.head_dim),
    "o_proj": lambda layer, a: (a.n_heads * (a.v_dim if a.kind == "mla" else a.head_dim), layer.d_model),
    "gate.gate_proj": lambda layer, a: (layer.d_model, a.n_heads * (a.head_dim if a.gate == "element" else 1)),
    "q_norm.norm": lambda layer, a: (a.head_dim * (a.n_heads if a.qk_norm_over == "whole" else 1),),
    "k_norm.norm": lambda layer, a: (a.head_dim * (a.n_kv_heads if a.qk_norm_over == "whole" else 1),),
    "q_down_proj": lambda layer, a: (layer.d_model, a.q_rank or 0),
    "q_latent_norm": lambda layer, a: (a.q_rank or 0,),
    "q_up_proj": lambda layer, a: (a.q_rank or layer.d_model, a.n_heads * query_width(a)),
    "kv_down_proj": lambda layer, a: (layer.d_model, a.kv_rank),
    "k_rope_proj": lambda layer, a: (layer.d_model, a.rope_dim),
    "kv_latent_norm": lambda layer, a: (a.kv_rank,),
    "k_up_proj": lambda layer, a: (a.kv_rank, a.n_heads * a.head_dim),
    "v_up_proj": lambda layer, a: (a.kv_rank, a.n_heads * a.v_dim),
}
"""{part of attention: the shape of its weight}"""
MIXER: dict[str, Callable[[LayerSpec, MixerSpec], Shape]] = {
    **{name: lambda layer, m: (layer.d_model, m.key_heads * m.key_dim) for name in ("q_proj", "k_proj")},
    **{name: lambda layer, m: (layer.d_model, m.n_heads * m.value_dim) for name in ("v_proj", "g_proj", "z_proj")},
    **{name: lambda layer, m: (layer.d_model, m.n_heads) for name in ("a_proj", "b_proj", "s_proj")},
    "o_proj": lambda layer, m: (m.n_heads * m.value_dim, layer.d_model),
    **{name: lambda layer, m: (m.convolution, m.key_heads * m.key_dim) for name in ("q_conv", "k_conv")},
    "v_conv": lambda layer, m: (m.convolution, m.n_heads * m.value_dim),
    "head_norm": lambda layer, m: (m.value_dim,),
    "output_norm": lambda layer, m: (m.n_heads * m.value_dim,),
}
"""{part of a recurrent mixer: the shape of its weight}. Parts without a name have a number per head."""


def weight_shape(name: str, config: Config, vocab_size: int) -> Shape:
    """Returns the shape of a weight of an imported family, by its canonical name."""
    if name in OUTER:
        return OUTER[name](config, vocab_size)
    if not name.startswith("layers."):
        return (config.model.d_model,)
    index, _, inner = name.removeprefix("layers.").partition(".")
    layer = layer_specs(config.model)[int(index)]
    part, _, path = inner.partition(".")
    if part not in ("attention", "mixer", "mlp"):
        return (layer.d_model,)  # a norm of the layer
    path, _, leaf = path.rpartition(".")
    if part == "mixer" and not path:
        return (layer.mixer.n_heads,)
    if leaf == "sinks":
        return (layer.attention.n_heads,)
    if leaf == "balance":
        return (layer.mlp.experts,)
    if part == "mlp":
        shape = _mlp(path, layer, layer.mlp)
    else:
        shape = ATTENTION[path](layer, layer.attention) if part == "attention" else MIXER[path](layer, layer.mixer)
    return (*shape[:-2], shape[-1]) if leaf == "bias" else shape


def _mlp(path: str, layer: LayerSpec, mlp: MlpSpec) -> Shape:
    name, width = path.removeprefix("shared."), mlp.hidden
    if name in ("router", "shared_gate"):
        return (layer.d_model, mlp.experts if name == "router" else 1)
    if path != name:
        width *= mlp.shared_experts
    shape = (width, layer.d_model) if name == "down_proj" else (layer.d_model, width)
    return (mlp.experts, *shape) if mlp.kind == "moe" and path == name else shape
