"""nanochat (Karpathy 2025, https://github.com/karpathy/nanochat): norms without weights, one of them on the embedding,
queries and keys normed per head, squared ReLU and a soft-cap of logits."""

from functools import partial
from typing import Any

from slm_core.config import Config, Norm
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LLAMA3
from slm_core.hf.families.gemma2 import SMALLEST
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number, whole, word
from slm_core.hf.rope import only_scaling, rope_parameters
from slm_core.hf.rules import swapped_halves

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(50304),
    "hidden_size": whole(768),
    "intermediate_size": whole(8192),
    "num_hidden_layers": whole(12),
    "num_attention_heads": whole(6),
    "hidden_act": word("relu2"),
    "final_logit_softcapping": number(15.0, low=SMALLEST, null=True),
}
MLP = {"up_proj": "fc1", "down_proj": "fc2"}


def read(fields: Fields) -> Config:
    fields.only("mlp_bias", False)
    # The class norms queries and keys behind the rotation, which does not change their size unless by YaRN's factor.
    only_scaling(rope_parameters(fields), "default", "linear", "llama3")
    norm = Norm(kind="rmsnorm", eps=fields.get("rms_norm_eps"), weight="none")
    values = {
        "attention.qk_norm": "rmsnorm",
        "embed_norm": True,
        "logit_softcap": fields.get("final_logit_softcapping") or 0.0,
    }
    model = with_values(read_model(fields, activations=ACTIVATIONS, norm=norm), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return write_model(config, ACTIVATIONS) | {
        "attention_bias": attention_bias(layer),
        "final_logit_softcapping": layer.logit_softcap or None,
    }


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "llama3 scaling, tied, biases, no cap, gelu": ROOMY | {
        "rope_parameters": TINY_LLAMA3, "tie_word_embeddings": True, "attention_bias": True,
        "final_logit_softcapping": None, "hidden_act": "gelu",
    },
    "low cap": TINY | {"final_logit_softcapping": 2.0, "pad_token_id": None},
}  # fmt: skip

# Heads turn the other way than here.
NANOCHAT = Family(
    "nanochat", "NanoChatForCausalLM", FIELDS, read, write, partial(rules, norms={}, turn=swapped_halves, mlp=MLP),
    examples=EXAMPLES,
)  # fmt: skip
