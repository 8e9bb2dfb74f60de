"""Reads and writes rotary positions: `rope_parameters`, or `rope_theta` beside `rope_scaling` before v5."""

import math
from collections.abc import Mapping
from typing import Any

from slm_core.config.layers import LayerSpec
from slm_core.config.widths import rotated
from slm_core.errors import UserError
from slm_core.hf.fields import Fields
from slm_core.model.positions import attention_factor, original_context

KINDS = {"default": "none", "linear": "linear", "yarn": "yarn", "llama3": "llama3"}
"""{rope_type: position.scaling}"""


def rope_parameters(fields: Fields, layer_type: str = "") -> dict[str, Any]:
    """Returns the rotary parameters of all layers, or of one `layer_type` if those differ."""
    old = {"rope_theta": fields.get("rope_theta"), "partial_rotary_factor": fields.get("partial_rotary_factor")}
    scaling, current = fields.get("rope_scaling", {}), fields.get("rope_parameters", {})
    current = current.get(layer_type, current) if layer_type else current
    given = {name: value for name, value in {**old, **scaling, **current}.items() if value is not None}
    given["rope_type"] = given.pop("type", None) or given.get("rope_type", "default")
    return given


def read_rope(parameters: Mapping[str, Any], context: int, theta: float = 10_000.0) -> dict[str, Any]:
    """Returns the fields of `model.position`.

    Args:
      parameters: from `rope_parameters`.
      context: max_position_embeddings. A scaling starts from it unless it names another context.
      theta: the family's default.

    Raises:
      UserError: the schema lacks the rope_type.
    """
    kind = parameters["rope_type"]
    if kind not in KINDS:
        raise UserError(f"config.json: rope_type={kind!r} cannot be expressed: only {', '.join(KINDS)}")
    position = {"kind": "rope", "theta": float(parameters.get("rope_theta", theta)), "scaling": KINDS[kind]}
    if kind == "default":
        return position
    position["scaling_factor"] = _number(parameters, "factor")
    if kind in ("yarn", "llama3"):
        position["original_context"] = int(parameters.get("original_max_position_embeddings") or context)
    if kind == "llama3":
        position |= {name: _number(parameters, name) for name in ("low_freq_factor", "high_freq_factor")}
    if kind == "yarn":
        position |= {name: float(parameters[name]) for name in ("beta_fast", "beta_slow") if parameters.get(name)}
        position |= {"truncate": bool(parameters.get("truncate", True)), "attention_factor": _temperature(parameters)}
    return position


def _number(parameters: Mapping[str, Any], name: str) -> float:
    if not isinstance(parameters.get(name), int | float):
        kind = parameters["rope_type"]
        raise UserError(
            f"config.json: {name}={parameters.get(name)!r} of rope_type={kind!r} is not a number: restore it"
        )
    return float(parameters[name])


def _temperature(parameters: Mapping[str, Any]) -> float:
    """Returns YaRN's factor of cosines and sines. DeepSeek divides it by the factor of its scores."""
    if parameters.get("attention_factor"):
        return float(parameters["attention_factor"])
    factor = _number(parameters, "factor")
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return yarn_scale(factor, parameters["mscale"]) / yarn_scale(factor, parameters["mscale_all_dim"])
    return yarn_scale(factor)


def yarn_scale(factor: float, multiplier: float = 1.0) -> float:
    """Computes 0.1 m ln(s) + 1 (Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.4)."""
    return 0.1 * multiplier * math.log(factor) + 1 if factor > 1 else 1.0


def write_rope(layer: LayerSpec, context: int) -> dict[str, Any]:
    """Returns `rope_parameters` of a layer. NTK scaling is written as a larger theta."""
    position, rotary = layer.position, rotated(layer)
    kinds = {scaling: kind for kind, scaling in KINDS.items()}
    written = {"rope_type": kinds.get(position.scaling, "default"), "rope_theta": position.theta}
    if position.scaling == "ntk" and rotary > 2:
        written["rope_theta"] *= position.scaling_factor ** (rotary / (rotary - 2))
    if position.scaling in ("linear", "yarn", "llama3"):
        written["factor"] = position.scaling_factor
    if position.scaling in ("yarn", "llama3"):
        original = original_context(position, context)
        written["original_max_position_embeddings"] = int(original) if original == int(original) else original
    if position.scaling == "llama3":
        written |= {"low_freq_factor": position.low_freq_factor, "high_freq_factor": position.high_freq_factor}
    if position.scaling == "yarn":
        written |= {"beta_fast": position.beta_fast, "beta_slow": position.beta_slow, "truncate": position.truncate}
        written["attention_factor"] = attention_factor(position)
    return written
