"""GPT-J (Wang and Komatsuzaki 2021, GPT-J-6B): GPT-2 with parallel blocks that share a LayerNorm, rotary pairs that are
neighbours, no biases in attention, and one of the logits."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Attention, Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.config.widths import rotated
from slm_core.errors import UserError
from slm_core.hf.families import gpt2
from slm_core.hf.family import Family
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rules import TRANSPOSED, Rule, half_split, linear, norm, tensor, then

FIELDS = {
    "vocab_size": whole(50400),
    "n_embd": whole(4096),
    "n_layer": whole(28),
    "n_head": whole(16),
    "n_inner": whole(None),
    "n_positions": whole(2048),
    "rotary_dim": whole(64, low=2),
    "activation_function": word("gelu_new"),
    "layer_norm_epsilon": number(1e-5),
    "tie_word_embeddings": flag(False),
}
NEUTRAL = (
    "attn_pdrop", "embd_pdrop", "resid_pdrop", "rotary", "scale_attn_weights", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
)  # fmt: skip
"""Dropout, heads of other tasks, and what the class does whether they are set or not."""


def read(fields: Fields) -> Config:
    fields.divides("n_head", "n_embd")
    width, heads, turned = fields.get("n_embd"), fields.get("n_head"), fields.get("rotary_dim")
    if turned % 2 or turned > width // heads:
        raise UserError(
            f"config.json: rotary_dim={turned} of a gptj model is not an even number of at most {width // heads}, the"
            " width of a head: restore the file"
        )
    values = {
        "model.head_bias": True,
        "model.norm.placement": "parallel_shared",
        "model.position": Position(kind="rope", fraction=turned / (width // heads)),
    }
    return with_values(gpt2.read_model(fields, Attention(n_heads=heads)), values)


def write(config: Config) -> dict[str, Any]:
    return gpt2.write(config) | {"rotary_dim": rotated(layer_specs(config.model)[0])}


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "transformer.wte.weight")
    for i, layer in enumerate(layer_specs(config.model)):
        path, hf_path = f"layers.{i}", f"transformer.h.{i}"
        turn = then(TRANSPOSED, half_split(layer.attention.n_heads, layer.attention.head_dim, rotated(layer)))
        layouts = {"q_proj": turn, "k_proj": turn, "v_proj": TRANSPOSED}
        yield from norm(f"{path}.attention_norm", f"{hf_path}.ln_1", bias=True)
        for name, layout in layouts.items():
            yield from linear(f"{path}.attention.{name}", f"{hf_path}.attn.{name}", layout=layout)
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.attn.out_proj")
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.fc_in", bias=True)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.fc_out", bias=True)
    yield from norm("final_norm", "transformer.ln_f", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")
    yield from tensor("head_bias", "lm_head.bias")


TINY_GPTJ = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}
EXAMPLES = {
    "": TINY_GPTJ,
    "whole heads turn, tied, relu": TINY_GPTJ | {
        "n_layer": 3, "rotary_dim": 8, "n_inner": 48, "tie_word_embeddings": True, "activation_function": "relu",
        "layer_norm_epsilon": 1e-3,
    },
}  # fmt: skip

GPTJ = Family(
    "gptj", "GPTJForCausalLM", FIELDS, read, write, rules, prefix="transformer.",
    ignored=(".attn.bias", ".attn.masked_bias"), aliases=gpt2.ALIASES, neutral=NEUTRAL, examples=EXAMPLES,
)  # fmt: skip
