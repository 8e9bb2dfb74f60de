"""Granite 3 (Granite Team 2024, Granite 3.0 Language Models): Llama with multipliers of the embedding, of scores, of
the residual stream and of logits."""

import math
from typing import Any

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.hf.examples import ROOMY, TINY, TINY_LINEAR
from slm_core.hf.families import llama
from slm_core.hf.families.gemma2 import SMALLEST
from slm_core.hf.family import Family, imported
from slm_core.hf.fields import Fields, number
from slm_core.model.mup import logit_factor

FIELDS = llama.FIELDS | {
    "embedding_multiplier": number(1.0),
    "attention_multiplier": number(1.0),
    "residual_multiplier": number(1.0),
    "logits_scaling": number(1.0, low=SMALLEST),
}


def read(fields: Fields) -> Config:
    values = {
        "embed_scale": float(fields.get("embedding_multiplier")),
        "attention.scale": float(fields.get("attention_multiplier")),
        "residual_multiplier": float(fields.get("residual_multiplier")),
        "logit_multiplier": 1 / fields.get("logits_scaling"),
    }
    model = with_values(llama.read_model(fields), values)
    return imported(model, [{}] * fields.get("num_hidden_layers"), fields.get("max_position_embeddings"))


def write(config: Config) -> dict[str, Any]:
    layer = layer_specs(config.model)[0]
    return llama.write(config) | {
        "embedding_multiplier": layer.embed_scale,
        "attention_multiplier": layer.attention.scale,
        "residual_multiplier": layer.residual_multiplier,
        "logits_scaling": _inverse(logit_factor(config.model)),
    }


def _inverse(factor: float) -> float:
    """Returns the number that 1 is divided by to get a factor: the shortest one, if there are several."""
    near = 1 / factor
    numbers = (float(f"{near:.15g}"), near, math.nextafter(near, 0.0), math.nextafter(near, math.inf))
    return next((each for each in numbers if 1 / each == factor), near)


EXAMPLES = {
    "multipliers": TINY | {
        "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4, "logits_scaling": 1.7,
    },
    "multipliers, linear scaling, tied, biases, gelu": ROOMY | {
        "embedding_multiplier": 0.5, "attention_multiplier": 0.1, "residual_multiplier": 2.5, "logits_scaling": 0.6,
        "rope_parameters": TINY_LINEAR, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True,
        "hidden_act": "gelu",
    },
}  # fmt: skip

GRANITE = Family("granite", "GraniteForCausalLM", FIELDS, read, write, llama.rules, examples=EXAMPLES)
