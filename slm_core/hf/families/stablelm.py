"""StableLM 2 (Bellagente et al. 2024, https://arxiv.org/abs/2402.17834): Llama with LayerNorm and partial rotation;
larger ones have parallel blocks."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Norm, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import TINY, TINY_YARN
from slm_core.hf.families import llama
from slm_core.hf.families.llama import NORMS, read_model, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole
from slm_core.hf.rope import read_partial, rope_fields, rope_parameters, write_partial
from slm_core.hf.rules import Rule

FIELDS = {name: field for name, field in llama.FIELDS.items() if name != "rms_norm_eps"} | {
    "vocab_size": whole(50304),
    "hidden_size": whole(2560),
    "intermediate_size": whole(6912),
    "num_key_value_heads": whole(32),
    "max_position_embeddings": whole(4096),
    "layer_norm_eps": number(1e-5),
    "use_qkv_bias": flag(False),
    "qk_layernorm": flag(False),
    "use_parallel_residual": flag(False),
    **rope_fields(share=0.25),
}
NEUTRAL = ("hidden_dropout",)
"""Dropout."""


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    for name in ("attention_bias", "mlp_bias", "qk_layernorm"):
        fields.only(name, False)
    head_dim = fields.get("hidden_size") // fields.get("num_attention_heads")
    fields.only("head_dim", None, head_dim)
    norm = Norm(
        kind="layernorm",
        bias=True,
        eps=fields.get("layer_norm_eps"),
        placement="parallel_shared" if fields.get("use_parallel_residual") else "pre",
    )
    position = Position(**read_partial(rope_parameters(fields), head_dim))
    values = {"attention.bias": fields.get("use_qkv_bias"), "attention.output_bias": False}
    model = with_values(read_model(fields, position=position, norm=norm), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    written = write_model(config) | {
        "layer_norm_eps": layer.norm.eps,
        "use_qkv_bias": layer.attention.bias,
        "use_parallel_residual": layer.norm.placement == "parallel_shared",
        "rope_parameters": write_partial(layer, config.data.seq_len),
    }
    del written["rms_norm_eps"]
    return written


def rules(config: Config) -> Iterator[Rule]:
    shared = config.model.norm.placement == "parallel_shared"
    return llama.rules(config, {name: NORMS[name] for name in ("attention_norm", "mlp_norm")[: 1 if shared else 2]})


EXAMPLES = {
    "": TINY,
    "parallel, yarn, tied, biases, gelu": TINY | {
        "use_parallel_residual": True, "use_qkv_bias": True, "tie_word_embeddings": True, "hidden_act": "gelu",
        "layer_norm_eps": 1e-3, "rope_parameters": TINY_YARN | {"partial_rotary_factor": 0.5},
    },
}  # fmt: skip

STABLELM = Family("stablelm", "StableLmForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
