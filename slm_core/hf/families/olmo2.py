"""OLMo 2 (Walsh et al. 2024, https://arxiv.org/abs/2501.00656): Llama whose norms stand behind attention and MLP, with
a norm of all queries, and of all keys, at once."""

from functools import partial
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole

FIELDS = LLAMA_FIELDS | {"vocab_size": whole(50304), "rms_norm_eps": number(1e-5)}
NORMS = {"attention_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    values = {"attention.qk_norm": "rmsnorm", "attention.qk_norm_over": "whole", "norm.placement": "output"}
    model = with_values(read_model(fields), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    return write_model(config) | {"attention_bias": attention_bias(layer_specs(config.model)[0])}


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "yarn, tied, biases": ROOMY | {
        "rope_parameters": TINY_YARN | {"attention_factor": 1.3}, "tie_word_embeddings": True, "attention_bias": True,
    },
}  # fmt: skip

OLMO2 = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    FIELDS,
    read,
    write,
    partial(rules, norms=NORMS),
    examples=EXAMPLES,
)
