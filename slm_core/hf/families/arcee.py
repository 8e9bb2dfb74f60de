"""Arcee AFM (Arcee AI 2025, Arcee Foundation Models): Llama whose MLPs have squared ReLU and no gate."""

from functools import partial
from typing import Any

from slm_core.config import Config
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import PLAIN_MLP, attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole, word

FIELDS = LLAMA_FIELDS | {
    "hidden_size": whole(2560),
    "intermediate_size": whole(18432),
    "hidden_act": word("relu2"),
    "max_position_embeddings": whole(4096),
    "rms_norm_eps": number(1e-5),
}


def read(fields: Fields) -> Config:
    fields.divides("num_attention_heads", "hidden_size")
    model = read_model(fields, activations=ACTIVATIONS)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config, ACTIVATIONS) | {"attention_bias": attention_bias(layer), "mlp_bias": layer.mlp.bias}


EXAMPLES = {
    "": TINY,
    "yarn, tied, biases, gelu": ROOMY | {
        "rope_parameters": TINY_YARN, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
        "hidden_act": "gelu",
    },
}  # fmt: skip

ARCEE = Family("arcee", "ArceeForCausalLM", FIELDS, read, write, partial(rules, mlp=PLAIN_MLP), examples=EXAMPLES)
