"""Phi-1.5 (Li et al. 2023, https://arxiv.org/abs/2309.05463) and Phi-2: parallel blocks with one LayerNorm, partial
rotation, and biases everywhere, also of the logits."""

from collections.abc import Iterator
from typing import Any

from slm_core.config import Config, Norm, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_rules, mlp_rules, norm_rules, read_model, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word
from slm_core.hf.rope import read_partial, rope_fields, rope_parameters, write_partial
from slm_core.hf.rules import Rule, linear, norm, tensor

FIELDS = {name: field for name, field in LLAMA_FIELDS.items() if name != "rms_norm_eps"} | {
    "vocab_size": whole(51200),
    "hidden_size": whole(2048),
    "intermediate_size": whole(8192),
    "num_hidden_layers": whole(24),
    "hidden_act": word("gelu_new"),
    "layer_norm_eps": number(1e-5),
    "qk_layernorm": flag(False),
    **rope_fields(share=0.5),
}
NEUTRAL = ("embd_pdrop", "resid_pdrop")
"""Dropout."""
NORMS = {"attention_norm": "input_layernorm"}
MLP = {"up_proj": "fc1", "down_proj": "fc2"}


def read(fields: Fields) -> Config:
    for name in ("attention_bias", "mlp_bias", "qk_layernorm"):
        fields.only(name, False)
    norm = Norm(kind="layernorm", bias=True, eps=fields.get("layer_norm_eps"), placement="parallel_shared")
    head_dim = fields.get("head_dim") or fields.get("hidden_size") // fields.get("num_attention_heads") or 1
    position = Position(**read_partial(rope_parameters(fields), head_dim))
    model = read_model(fields, position=position, activations=ACTIVATIONS, norm=norm)
    model = with_values(model, {"attention.bias": True, "mlp.bias": True, "head_bias": True})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    written = write_model(config, ACTIVATIONS) | {
        "layer_norm_eps": layer.norm.eps,
        "rope_parameters": write_partial(layer, config.data.seq_len),
    }
    del written["rms_norm_eps"]
    return written


def rules(config: Config) -> Iterator[Rule]:
    yield from tensor("embed.weight", "model.embed_tokens.weight")
    for i, layer in enumerate(layer_specs(config.model)):
        yield from attention_rules(layer, i, output="dense")
        yield from mlp_rules(layer, f"layers.{i}.mlp", f"model.layers.{i}.mlp", MLP)
        yield from norm_rules(i, NORMS, bias=True)
    yield from norm("final_norm", "model.final_layernorm", bias=True)
    if not config.model.tie_embeddings:
        yield from linear("head", "lm_head")
    yield from tensor("head_bias", "lm_head.bias")


EXAMPLES = {
    "": TINY | {"num_key_value_heads": 4},
    "yarn, tied, grouped, gelu": {name: value for name, value in ROOMY.items() if name != "rms_norm_eps"} | {
        "rope_parameters": TINY_YARN | {"partial_rotary_factor": 0.7}, "tie_word_embeddings": True,
        "hidden_act": "gelu", "layer_norm_eps": 1e-3,
    },
}  # fmt: skip

PHI = Family("phi", "PhiForCausalLM", FIELDS, read, write, rules, neutral=NEUTRAL, examples=EXAMPLES)
