"""SmolLM3 (Hugging Face 2025, SmolLM3: smol, multilingual, long-context reasoner): Llama in which some layers have no
position (Yang et al. 2025, Rope to Nope and back again, https://arxiv.org/abs/2501.18795)."""

from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.examples import ROOMY, TINY, TINY_LLAMA3
from slm_core.hf.families.llama import FIELDS as LLAMA_FIELDS
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, flag, listed, whole
from slm_core.hf.layer_types import read_layer_types, read_window, read_windows, write_layer_types
from slm_core.hf.rope import rope_fields, write_rope

FIELDS = LLAMA_FIELDS | {
    "vocab_size": whole(128256),
    "hidden_size": whole(2048),
    "num_hidden_layers": whole(36),
    "num_attention_heads": whole(16),
    "num_key_value_heads": whole(4, null=True),
    "max_position_embeddings": whole(32768),
    "tie_word_embeddings": flag(True),
    "use_sliding_window": flag(False),
    "sliding_window": whole(None, low=2),
    "no_rope_layers": listed(),
    "no_rope_layer_interval": whole(4),
    "layer_types": listed(),
    **rope_fields(2e6),
}


def read(fields: Fields) -> Config:
    model, turned = read_model(fields), _read_turned(fields)
    if not any(turned):
        model = with_values(model, {"position": Position(kind="none")})
    window = read_window(fields)
    types = read_layer_types(fields, lambda i: window is not None and not turned[i])
    layers = [
        windowed if turns else windowed | {"position.kind": "none"}
        for windowed, turns in zip(read_windows(types, window), turned, strict=True)
    ]
    return imported(model, layers, fields.get("max_position_embeddings"))


def _read_turned(fields: Fields) -> list[bool]:
    """Reads whether each layer turns. In spite of the field's name, a layer with a 1 in no_rope_layers does."""
    count, interval = fields.get("num_hidden_layers"), fields.get("no_rope_layer_interval")
    turned = fields.get("no_rope_layers")
    if turned is None:
        return [(i + 1) % interval != 0 for i in range(count)]
    if len(turned) < count or not all(isinstance(each, int) for each in turned):
        raise UserError(
            f"config.json: no_rope_layers names {len(turned)} of num_hidden_layers={count}, or more than 0 and 1:"
            " restore the file"
        )
    return [bool(each) for each in turned[:count]]


def write(config: Config) -> dict[str, Any]:
    layers, types = layer_specs(config.model), write_layer_types(config)
    turning = next((layer for layer in layers if layer.position.kind == "rope"), layers[0])
    return {
        **write_model(config),
        **types,
        "rope_parameters": write_rope(turning, config.data.seq_len),
        "no_rope_layers": [int(layer.position.kind == "rope") for layer in layers],
        "use_sliding_window": types["sliding_window"] is not None,
        "attention_bias": attention_bias(layers[0]),
        "mlp_bias": layers[0].mlp.bias,
    }


EXAMPLES = {
    "": TINY | {
        "num_hidden_layers": 5, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, "pad_token_id": None,
    },
    "windows, llama3 scaling, untied, biases": ROOMY | {
        "no_rope_layers": [0, 1, 1, 0], "use_sliding_window": True, "sliding_window": 8, "rope_parameters": TINY_LLAMA3,
        "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True,
    },
    "windows of turning layers": ROOMY | {
        "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
}  # fmt: skip

# Qwen's max_window_layers stands in the published checkpoint; the class does not read it.
SMOLLM3 = Family(
    "smollm3",
    "SmolLM3ForCausalLM",
    FIELDS,
    read,
    write,
    rules,
    neutral=("max_window_layers",),
    examples=EXAMPLES,
)
