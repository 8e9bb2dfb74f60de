"""ERNIE 4.5 (Baidu-ERNIE-Team 2025, ERNIE 4.5 Technical Report): Llama whose rotary pairs are neighbours, with biases
in all linear layers or in none."""

from functools import partial
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole
from slm_core.hf.rope import rope_fields
from slm_core.hf.rules import half_split

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(103424),
    "hidden_size": whole(1024),
    "intermediate_size": whole(3072),
    "num_hidden_layers": whole(18),
    "num_attention_heads": whole(16),
    "num_key_value_heads": whole(2, null=True),
    "head_dim": whole(128, null=True),
    "max_position_embeddings": whole(131072),
    "rms_norm_eps": number(1e-5),
    "tie_word_embeddings": flag(True),
    "use_bias": flag(False, null=True),
    **rope_fields(5e5),
}


def read(fields: Fields) -> Config:
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    bias = bool(fields.get("use_bias"))
    model = with_values(read_model(fields), {"attention.bias": bias, "mlp.bias": bias})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config) | {"use_bias": attention_bias(layer) or layer.mlp.bias}


EXAMPLES = {
    "": TINY | {"head_dim": 8, "pad_token_id": None},
    "yarn, untied, biases, gelu": ROOMY | {
        "rope_parameters": TINY_YARN, "tie_word_embeddings": False, "use_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

ERNIE4_5 = Family(
    "ernie4_5", "Ernie4_5ForCausalLM", FIELDS, read, write, partial(rules, turn=half_split), examples=EXAMPLES
)
