"""GPT-Neo (Black et al. 2021, https://doi.org/10.5281/zenodo.5297715), and so TinyStories (Eldan and Li 2023,
https://arxiv.org/abs/2305.07759): GPT-2 with unscaled scores, and a window in some layers."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from slm_core.config import Attention, Config, Mlp, Model, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import hidden_act
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, number, text, whole, word
from slm_core.hf.rules import Rule, linear, norm, tensor

FIELDS = {
    "vocab_size": whole(50257),
    "hidden_size": whole(2048),
    "num_layers": whole(24),
    "num_heads": whole(16),
    "intermediate_size": whole(None),
    "max_position_embeddings": whole(2048),
    "attention_types": listed(),
    "attention_layers": listed(),
    "window_size": whole(256),
    "activation_function": word("gelu_new"),
    "layer_norm_epsilon": number(1e-5),
    "tie_word_embeddings": flag(True),
}
ALIASES = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}
NEUTRAL = (
    "embed_dropout", "resid_dropout", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj",
)  # fmt: skip
"""Dropout, and heads of other tasks."""
ALTERNATING: list[Any] = [[["global", "local"], 12]]
"""The class's own attention_types."""


def read(fields: Fields) -> Config:
    fields.divides("num_heads", "hidden_size")
    width = fields.get("hidden_size")
    kind, gelu = ACTIVATIONS[fields.only("activation_function", *ACTIVATIONS)]
    model = Model(
        d_model=width,
        tie_embeddings=fields.get("tie_word_embeddings"),
        attention=Attention(n_heads=fields.get("num_heads"), scale=1.0, bias=False, output_bias=True),
        position=Position(kind="learned"),
        norm=Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_epsilon")),
        mlp=Mlp(kind=kind, gelu=gelu, hidden=fields.get("intermediate_size") or 4 * width, bias=True),
    )
    window = {"attention.window": fields.get("window_size")}
    layers = [window if kind == "local" else {} for kind in _read_types(fields)]
    return imported(model, layers, fields.get("max_position_embeddings"))


def _read_types(fields: Fields) -> list[str]:
    """Reads whether each layer is "global" or "local". The class writes attention_layers beside attention_types."""
    count, given = fields.get("num_layers"), fields.get("attention_types")
    named: Any = ALTERNATING if given is None else given
    try:
        every = (kind for kinds, times in named for _ in range(times) for kind in kinds)
        types = list(islice(every, count + 1))  # `times` may be any number
    except (TypeError, ValueError):
        types = []
    if len(types) != count or not all(kind in ("global", "local") for kind in types):
        raise UserError(
            f"config.json: attention_types={text(named)} of a gpt_neo model does not name num_layers={count} layers as"
            " global or local: restore the file"
        )
    if fields.given("attention_layers"):
        fields.only("attention_layers", types)
    return types


def write(config: Config) -> dict[str, Any]:
    layers = layer_specs(config.model)
    layer, windows = layers[0], [layer.attention.window for layer in layers]
    return {
        "hidden_size": layer.d_model,
        "num_layers": layer.n_layers,
        "num_heads": layer.attention.n_heads,
        "intermediate_size": layer.mlp.hidden,
        "max_position_embeddings": config.data.seq_len,
        "attention_types": [[["local" if window else "global" for window in windows], 1]],
        "window_size": next(filter(None, windows), 256),
        "activation_function": hidden_act(layer.mlp, ACTIVATIONS),
        "layer_norm_epsilon": layer.norm.eps,
        "tie_word_embeddings": layer.tie_embeddings,
    }


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "transformer.wte.weight")
    yield from tensor("position.weight", "transformer.wpe.weight")
    for i in range(config.model.n_layers):
        path, hf_path = f"layers.{i}", f"transformer.h.{i}"
        yield from norm(f"{path}.attention_norm", f"{hf_path}.ln_1", bias=True)
        for name in ("q_proj", "k_proj", "v_proj"):
            yield from linear(f"{path}.attention.{name}", f"{hf_path}.attn.attention.{name}")
        yield from linear(f"{path}.attention.o_proj", f"{hf_path}.attn.attention.out_proj", bias=True)
        yield from norm(f"{path}.mlp_norm", f"{hf_path}.ln_2", bias=True)
        yield from linear(f"{path}.mlp.up_proj", f"{hf_path}.mlp.c_fc", bias=True)
        yield from linear(f"{path}.mlp.down_proj", f"{hf_path}.mlp.c_proj", bias=True)
    yield from norm("final_norm", "transformer.ln_f", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")


TINY_NEO = {
    "vocab_size": 96, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
    "attention_types": [[["global", "local"], 1]], "window_size": 8,
}  # fmt: skip
EXAMPLES = {
    "windows": TINY_NEO,
    "more windows, untied, relu2": TINY_NEO | {
        "num_layers": 3, "attention_types": [[["local"], 2], [["global"], 1]], "intermediate_size": 48,
        "tie_word_embeddings": False, "activation_function": "relu2", "layer_norm_epsilon": 1e-3,
    },
}  # fmt: skip

GPT_NEO = Family(
    "gpt_neo", "GPTNeoForCausalLM", FIELDS, read, write, rules, prefix="transformer.",
    ignored=(".attn.attention.bias", ".attn.attention.masked_bias"), aliases=ALIASES, neutral=NEUTRAL,
    examples=EXAMPLES,
)  # fmt: skip
