"""GPT-NeoX (Black et al. 2022, https://arxiv.org/abs/2204.06745), and so Pythia (Biderman et al. 2023,
https://arxiv.org/abs/2304.01373)."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import TINY_LLAMA3, TINY_YARN
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import attention_bias
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rope import completed, read_partial, rope_fields, write_partial
from slm_core.hf.rules import TRANSPOSED, Rule, fused, linear, norm, split_heads, tensor, then

FIELDS = {
    "vocab_size": whole(50432),
    "hidden_size": whole(6144),
    "intermediate_size": whole(24576),
    "num_hidden_layers": whole(44),
    "num_attention_heads": whole(64),
    "hidden_act": word("gelu"),
    "max_position_embeddings": whole(2048),
    "layer_norm_eps": number(1e-5),
    "tie_word_embeddings": flag(False),
    "use_parallel_residual": flag(True),
    "attention_bias": flag(True),
    "rotary_emb_base": number(10_000.0),
    "rotary_pct": number(0.25),
    **rope_fields(),
}
NEUTRAL = ("attention_probs_dropout_prob", "hidden_dropout", "hidden_dropout_prob")
"""Dropout."""


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    kind, gelu = ACTIVATIONS[fields.only("hidden_act", *ACTIVATIONS)]
    rope = _rope_parameters(fields)
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=Attention(n_heads=heads, bias=fields.get("attention_bias")),
        position=Position(**read_partial(rope, width // heads)),
        norm=Norm(
            kind="layernorm",
            bias=True,
            eps=fields.get("layer_norm_eps"),
            placement="parallel" if fields.get("use_parallel_residual") else "pre",
        ),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("intermediate_size"), bias=True),
    )
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def _rope_parameters(fields: Fields) -> dict[str, Any]:
    """Returns the rotary parameters. The class reads rotary_emb_base and rotary_pct, and not their newer names."""
    given = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    for name, older in {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}.items():
        given.setdefault(name, fields.get(older))
        if fields.given(name) and fields.get(name) != given[name]:
            raise UserError(
                f"config.json: {name}={fields.get(name)} of a gpt_neox model is not read by its class, which has"
                f" {older}={given[name]}: delete the wrong one"
            )
    if fields.given("original_max_position_embeddings"):
        given["original_max_position_embeddings"] = fields.get("original_max_position_embeddings")
    return completed(given, fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    activations = {value: hf_name for hf_name, value in reversed(ACTIVATIONS.items())}
    return {
        "hidden_size": layer.d_model,
        "num_hidden_layers": layer.n_layers,
        "num_attention_heads": layer.attention.n_heads,
        "intermediate_size": layer.mlp.hidden,
        "hidden_act": activations.get((layer.mlp.kind, layer.mlp.gelu), "gelu"),
        "layer_norm_eps": layer.norm.eps,
        "use_parallel_residual": layer.norm.placement == "parallel",
        "rope_parameters": write_partial(layer, config.data.seq_len),
        "max_position_embeddings": config.data.seq_len,
        "attention_bias": attention_bias(layer),
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "gpt_neox.embed_in.weight")
    for i, layer in enumerate(layer_specs(config.model)):
        path, hf_path, attention = f"layers.{i}", f"gpt_neox.layers.{i}", layer.attention
        parts = [f"{path}.attention.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        layout = then(TRANSPOSED, split_heads(attention.n_heads, [attention.head_dim] * 3))
        yield from norm(f"{path}.attention_norm", f"{hf_path}.input_layernorm", bias=True)
        yield from fused(parts, f"{hf_path}.attention.query_key_value", layout, attention.bias)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.attention.dense", attention.bias)
        yield from norm(f"{path}.mlp_norm", f"{hf_path}.post_attention_layernorm", bias=True)
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.dense_h_to_4h", bias=True)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.dense_4h_to_h", bias=True)
    yield from norm("final_norm", "gpt_neox.final_layer_norm", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "embed_out")


TINY_NEOX = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5},
}  # fmt: skip
EXAMPLES = {
    "": TINY_NEOX,
    "sequential, yarn, tied, no biases, tanh": TINY_NEOX | {
        "use_parallel_residual": False, "rope_parameters": TINY_YARN | {"partial_rotary_factor": 0.5},
        "tie_word_embeddings": True, "attention_bias": False, "hidden_act": "gelu_fast", "layer_norm_eps": 1e-3,
    },
    "whole heads turn, llama3 scaling, relu2": TINY_NEOX | {
        "rope_parameters": TINY_LLAMA3 | {"partial_rotary_factor": 1.0}, "hidden_act": "relu2",
    },
}  # fmt: skip

GPT_NEOX = Family(
    "gpt_neox", "GPTNeoXForCausalLM", FIELDS, read, write, rules, prefix="gpt_neox.",
    ignored=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"), neutral=NEUTRAL, examples=EXAMPLES,
)  # fmt: skip
