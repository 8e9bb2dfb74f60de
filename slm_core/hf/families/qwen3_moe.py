"""Qwen3's mixtures of experts (Yang et al. 2025, https://arxiv.org/abs/2505.09388): Qwen3 with a mixture of gated MLPs
in some layers or in all."""

from collections.abc import Iterator, Sequence
from typing import Any

from slm_core.config import Config, Mlp, Model
from slm_core.config.fields import with_values
from slm_core.config.layers import LayerSpec, MlpSpec, layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import (
    NORMS,
    attention_bias,
    attention_rules,
    hidden_act,
    mlp_rules,
    norm_rules,
    outer_rules,
    read_model,
    write_model,
)
from slm_core.hf.families.mixtral import (
    balance_loss,
    expert_act,
    mixture_rules,
    read_expert,
    routing_fields,
    write_routing,
)
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, whole
from slm_core.hf.layer_types import read_window
from slm_core.hf.rules import Rule

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(151936),
    "hidden_size": whole(2048),
    "intermediate_size": whole(6144),
    "num_hidden_layers": whole(24),
    "num_key_value_heads": whole(4),
    "max_position_embeddings": whole(32768),
    "use_sliding_window": flag(False),
    "sliding_window": whole(4096, low=2, null=True),
    "moe_intermediate_size": whole(768),
    "num_experts": whole(128, low=0),
    "norm_topk_prob": flag(False),
    "decoder_sparse_step": whole(1),
    "mlp_only_layers": listed(),
    **routing_fields(8),
}
NEUTRAL = ("max_window_layers",)
"""The class has one window in all layers."""
PROJECTIONS = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
"""{linear layer of an expert: its name in a checkpoint}"""


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    mixture = read_mixture(fields, "moe_intermediate_size")
    # The class does not have layer_types: all layers have the window, or none.
    values = {"attention.qk_norm": "rmsnorm", "attention.window": read_window(fields) or 0}
    model, layers = with_mixtures(with_values(read_model(fields), values), mixture, read_sparse(fields))
    return imported(model, layers, fields.get("max_position_embeddings"))


def read_mixture(fields: Fields, hidden: str) -> Mlp:
    """Reads a mixture; `hidden` is the field with the width of an expert."""
    return Mlp(
        kind="moe",
        hidden=fields.get(hidden),
        expert=read_expert(fields),
        experts=fields.get("num_experts"),
        top_k=fields.get("num_experts_per_tok"),
        renormalise=fields.get("norm_topk_prob"),
        balance_loss=balance_loss(fields),
    )


def read_sparse(fields: Fields) -> list[bool]:
    """Reads whether each layer has a mixture."""
    dense, step = fields.get("mlp_only_layers") or [], fields.get("decoder_sparse_step")
    count, experts = fields.get("num_hidden_layers"), fields.get("num_experts")
    return [experts > 0 and i not in dense and (i + 1) % step == 0 for i in range(count)]


def with_mixtures(model: Model, mixture: Mlp, sparse: Sequence[bool]) -> tuple[Model, list[dict[str, Any]]]:
    """Returns a model with mixtures in its sparse layers and its own MLP in the others, and each layer's fields."""
    if not any(sparse):
        return model, [{}] * len(sparse)
    dense = {"mlp.kind": model.mlp.kind, "mlp.hidden": model.mlp.hidden}
    return with_values(model, {"mlp": mixture}), [{} if is_sparse else dense for is_sparse in sparse]


def write(config: Config) -> dict[str, Any]:
    layers = layer_specs(config.model)
    mixture = mixture_of(layers)
    window = layers[0].attention.window
    return {
        **write_model(config),
        **write_routing(mixture),
        **write_hidden(layers),
        "num_experts": mixture.experts,
        "norm_topk_prob": mixture.renormalise,
        "mlp_only_layers": [i for i, layer in enumerate(layers) if layer.mlp.kind != "moe"],
        "sliding_window": window or None,
        "use_sliding_window": window > 0,
        "attention_bias": attention_bias(layers[0]),
    }


def mixture_of(layers: Sequence[LayerSpec]) -> MlpSpec:
    """Returns the first mixture; the first MLP if there is none."""
    return next((layer.mlp for layer in layers if layer.mlp.kind == "moe"), layers[0].mlp)


def write_hidden(layers: Sequence[LayerSpec]) -> dict[str, Any]:
    """Writes the widths and the activation of dense MLPs and experts."""
    mixture = mixture_of(layers)
    dense = next((layer.mlp for layer in layers if layer.mlp.kind != "moe"), mixture)
    return {
        "intermediate_size": dense.hidden,
        "moe_intermediate_size": mixture.hidden,
        "hidden_act": expert_act(mixture) if mixture.kind == "moe" else hidden_act(dense),
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from outer_rules(config)
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i)
        yield from sparse_or_dense_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp")
        yield from norm_rules(i, NORMS)


def sparse_or_dense_rules(layer: LayerSpec, path: str, hf_path: str) -> Iterator[Rule]:
    """Yields the rules of a mixture or of a gated MLP."""
    if layer.mlp.kind == "moe":
        yield from mixture_rules(layer, path, hf_path, PROJECTIONS)
    else:
        yield from mlp_rules(layer, path, hf_path)


TINY_EXPERTS = {"moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2}  # fmt: skip
EXAMPLES = {
    "": TINY | TINY_EXPERTS,
    "dense layers, window, yarn, tied, biases": ROOMY | TINY_EXPERTS | {
        "num_hidden_layers": 6, "mlp_only_layers": [3], "decoder_sparse_step": 2, "norm_topk_prob": True,
        "use_sliding_window": True, "sliding_window": 8, "rope_parameters": TINY_YARN, "tie_word_embeddings": True,
        "attention_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

QWEN3_MOE = Family(
    "qwen3_moe", "Qwen3MoeForCausalLM", FIELDS, read, write, rules, aliases={"num_local_experts": "num_experts"},
    neutral=NEUTRAL, examples=EXAMPLES,
)  # fmt: skip
