"""Nemotron and Minitron (Parmar et al. 2024, https://arxiv.org/abs/2402.16819): LayerNorm with 1 + w, squared ReLU and
partial rotation."""

from functools import partial
from typing import Any

from slm_core.config import Config, Norm, Position
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LLAMA3
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import PLAIN_MLP, attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole, word
from slm_core.hf.rope import read_partial, rope_fields, rope_parameters, write_partial

FIELDS = {name: field for name, field in LLAMA_FIELDS.items() if name != "rms_norm_eps"} | {
    "vocab_size": whole(256000),
    "hidden_size": whole(6144),
    "intermediate_size": whole(24576),
    "num_attention_heads": whole(48),
    "hidden_act": word("relu2"),
    "max_position_embeddings": whole(4096),
    "norm_eps": number(1e-5),
    **rope_fields(share=0.5),
}


def read(fields: Fields) -> Config:
    norm = Norm(kind="layernorm", bias=True, weight="one_plus", eps=fields.get("norm_eps"))
    head_dim = fields.get("head_dim") or fields.get("hidden_size") // fields.get("num_attention_heads") or 1
    position = Position(**read_partial(rope_parameters(fields), head_dim))
    model = read_model(fields, position=position, activations=ACTIVATIONS, norm=norm)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    written = write_model(config, ACTIVATIONS) | {
        "norm_eps": layer.norm.eps,
        "attention_bias": attention_bias(layer),
        "mlp_bias": layer.mlp.bias,
        "rope_parameters": write_partial(layer, config.data.seq_len),
    }
    del written["rms_norm_eps"]
    return written


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "llama3 scaling, tied, biases, gelu": {name: value for name, value in ROOMY.items() if name != "rms_norm_eps"} | {
        "norm_eps": 1e-3, "rope_parameters": TINY_LLAMA3 | {"partial_rotary_factor": 0.7},
        "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

NEMOTRON = Family(
    "nemotron", "NemotronForCausalLM", FIELDS, read, write, partial(rules, mlp=PLAIN_MLP), examples=EXAMPLES
)
