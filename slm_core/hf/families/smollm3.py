"""SmolLM3 (Hugging Face 2025, SmolLM3: smol, multilingual, long-context reasoner): Llama in which some layers have no
position (Yang et al. 2025, Rope to Nope and back again, https://arxiv.org/abs/2501.18795)."""

from typing import Any

from slm_core.config import Config, Position
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf.families.llama import attention_bias, read_model, rules, write_model
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields
from slm_core.hf.layer_types import read_layer_types, read_window, read_windows, write_layer_types
from slm_core.hf.rope import write_rope


def read(fields: Fields) -> Config:
    model = read_model(fields, tied=True, theta=2e6)
    count, interval = fields.need("num_hidden_layers"), fields.get("no_rope_layer_interval", 4)
    # In spite of the field's name, a layer with a 1 in no_rope_layers has rope.
    turned = fields.get("no_rope_layers", [(i + 1) % interval != 0 for i in range(count)])[:count]
    if len(turned) < count:
        raise UserError(
            f"config.json: no_rope_layers names {len(turned)} of num_hidden_layers={count}: restore the file"
        )
    if not any(turned):
        model = with_values(model, {"position": Position(kind="none")})
    window = read_window(fields, None)
    types = read_layer_types(fields, lambda i: window is not None and not turned[i])
    layers = [
        windowed if turns else windowed | {"position.kind": "none"}
        for windowed, turns in zip(read_windows(types, window), turned, strict=True)
    ]
    return imported(model, layers, fields.need("max_position_embeddings"))


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


SMOLLM3 = Family("smollm3", "SmolLM3ForCausalLM", read, write, rules)
