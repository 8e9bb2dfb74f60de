"""OLMo 1 (Groeneveld et al. 2024, https://arxiv.org/abs/2402.00838): Llama with LayerNorms that have no parameters."""

from functools import partial
from typing import Any

from slm_core.config import Config, Norm
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole

FIELDS = {name: field for name, field in LLAMA_FIELDS.items() if name != "rms_norm_eps"} | {
    "vocab_size": whole(50304),
    "clip_qkv": number(None),
}
NORM = Norm(kind="layernorm", eps=1e-5, weight="none")
"""The class's own norm: config.json cannot change it."""


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    fields.only("clip_qkv", None)
    model = read_model(fields, norm=NORM)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    written = write_model(config) | {"attention_bias": attention_bias(layer_specs(config.model)[0])}
    del written["rms_norm_eps"]
    return written


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "yarn, tied, biases, gelu": {name: value for name, value in ROOMY.items() if name != "rms_norm_eps"} | {
        "rope_parameters": TINY_YARN, "tie_word_embeddings": True, "attention_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

OLMO = Family("olmo", "OlmoForCausalLM", FIELDS, read, write, partial(rules, norms={}), examples=EXAMPLES)
