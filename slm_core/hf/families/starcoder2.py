"""StarCoder 2 (Lozhkov et al. 2024, https://arxiv.org/abs/2402.19173): grouped-query attention and RoPE with the
LayerNorms and the MLPs of GPT-2."""

from functools import partial
from typing import Any

from slm_core.config import Config, Norm
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_YARN
from slm_core.hf.families.gpt2 import ACTIVATIONS
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, number, whole, word

FIELDS = {name: field for name, field in LLAMA_FIELDS.items() if name != "rms_norm_eps"} | {
    "vocab_size": whole(49152),
    "hidden_size": whole(3072),
    "intermediate_size": whole(12288),
    "num_hidden_layers": whole(30),
    "num_attention_heads": whole(24),
    "num_key_value_heads": whole(2),
    "hidden_act": word("gelu_pytorch_tanh"),
    "max_position_embeddings": whole(4096),
    "norm_epsilon": number(1e-5),
    "sliding_window": whole(None, low=2),
    "use_bias": flag(True),
    "tie_word_embeddings": flag(True),
    "mlp_type": word("default"),
    "norm_type": word("layer_norm"),
}
NEUTRAL = ("embedding_dropout", "residual_dropout")
"""Dropout."""
ONLY = {"attention_bias": False, "mlp_bias": False, "mlp_type": "default", "norm_type": "layer_norm"}
"""{field: the only value that can be expressed}"""
MLP = {"up_proj": "c_fc", "down_proj": "c_proj"}


def read(fields: Fields) -> Config:
    for name, value in ONLY.items():
        fields.only(name, value)
    norm = Norm(kind="layernorm", bias=True, eps=fields.get("norm_epsilon"))
    bias = fields.get("use_bias")
    values = {"attention.bias": bias, "mlp.bias": bias, "attention.window": fields.get("sliding_window") or 0}
    model = with_values(read_model(fields, activations=ACTIVATIONS, norm=norm), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    written = write_model(config, ACTIVATIONS) | {
        "norm_epsilon": layer.norm.eps,
        "sliding_window": layer.attention.window or None,
        "use_bias": attention_bias(layer) or layer.mlp.bias,
    }
    del written["rms_norm_eps"]
    return written


EXAMPLES = {
    "": TINY | {"pad_token_id": None},
    "window, yarn, untied, no biases, relu2": {n: v for n, v in ROOMY.items() if n != "rms_norm_eps"} | {
        "norm_epsilon": 1e-3, "sliding_window": 8, "rope_parameters": TINY_YARN, "tie_word_embeddings": False,
        "use_bias": False, "hidden_act": "relu2",
    },
}  # fmt: skip

STARCODER2 = Family(
    "starcoder2", "Starcoder2ForCausalLM", FIELDS, read, write, partial(rules, mlp=MLP), neutral=NEUTRAL,
    examples=EXAMPLES,
)  # fmt: skip
