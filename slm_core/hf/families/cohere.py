"""Command R (Cohere 2024, C4AI Command R; Aya 2024, https://arxiv.org/abs/2405.15032): parallel blocks with one
LayerNorm without a bias, rotary pairs that are neighbours, and a scale of logits."""

from functools import partial
from typing import Any

from slm_core.config import Config, Norm
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole
from slm_core.hf.rope import rope_fields
from slm_core.hf.rules import half_split
from slm_core.model.mup import logit_factor

FIELDS = {name: field for name, field in LLAMA_FIELDS.items() if name != "rms_norm_eps"} | {
    "vocab_size": whole(256000),
    "hidden_size": whole(8192),
    "intermediate_size": whole(22528),
    "num_hidden_layers": whole(40),
    "num_attention_heads": whole(64),
    "max_position_embeddings": whole(8192),
    "layer_norm_eps": number(1e-5),
    "logit_scale": number(0.0625),
    "tie_word_embeddings": flag(True),
    "use_qk_norm": flag(False, null=True),
    **rope_fields(5e5),
}
NORMS = {"attention_norm": "input_layernorm"}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    fields.only("use_qk_norm", False, None)
    norm = Norm(kind="layernorm", eps=fields.get("layer_norm_eps"), placement="parallel_shared")
    model = with_values(read_model(fields, norm=norm), {"logit_multiplier": float(fields.get("logit_scale"))})
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    written = write_model(config) | {
        "layer_norm_eps": layer.norm.eps,
        "logit_scale": logit_factor(config.model),
        "attention_bias": attention_bias(layer),
    }
    del written["rms_norm_eps"]
    return written


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "yarn, untied, biases, gelu": {name: value for name, value in ROOMY.items() if name != "rms_norm_eps"} | {
        "logit_scale": 0.7, "layer_norm_eps": 1e-3, "rope_parameters": TINY_YARN, "tie_word_embeddings": False,
        "attention_bias": True, "hidden_act": "gelu",
    },
}  # fmt: skip

COHERE = Family(
    "cohere", "CohereForCausalLM", FIELDS, read, write, partial(rules, norms=NORMS, turn=half_split), examples=EXAMPLES
)
