"""Reads and writes rotary positions: `rope_parameters`, or `rope_theta` beside `rope_scaling` before v5."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from slm_core.config.layers import LayerSpec
from slm_core.config.widths import rotated
from slm_core.errors import UserError
from slm_core.hf.fields import Field, Fields, nested, number, text
from slm_core.model.positions import attention_factor, original_context

KINDS = {"default": "none", "linear": "linear", "yarn": "yarn", "llama3": "llama3"}
"""{rope_type: position.scaling}"""
BANDS = ("low_freq_factor", "high_freq_factor")
OPTIONAL = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
"""Numbers that may be absent or null."""
KNOWN = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "low_freq_factor", "high_freq_factor", "truncate", "finetuned", *OPTIONAL,
}  # fmt: skip
"""All entries of `rope_parameters`. A rope_type ignores those that it does not read."""


def rope_fields(theta: float = 10_000.0, share: float | None = None) -> dict[str, Field]:
    """Returns the fields that say how queries and keys turn. `theta` and `share` of a head are the class's own."""
    return {
        "rope_theta": number(theta),
        "partial_rotary_factor": number(share),
        "rope_scaling": nested(),
        "rope_parameters": nested(),
        "original_max_position_embeddings": Field("a whole number", None, low=1),
    }


def rope_parameters(fields: Fields) -> dict[str, Any]:
    """Returns the checked rotary parameters of all layers, as the class completes them.

    A `rope_scaling` takes the place of `rope_parameters`; entries inside take the place of fields beside them.
    """
    given = dict(fields.get("rope_scaling") or fields.get("rope_parameters") or {})
    given.setdefault("rope_theta", fields.get("rope_theta"))
    if fields.get("partial_rotary_factor") is not None:
        given.setdefault("partial_rotary_factor", fields.get("partial_rotary_factor"))
    if fields.given("original_max_position_embeddings"):
        given["original_max_position_embeddings"] = fields.get("original_max_position_embeddings")
    return completed(given, fields.get("max_position_embeddings"))


def completed(given: Mapping[str, Any], context: int, known: Collection[str] = KNOWN) -> dict[str, Any]:
    """Returns checked rotary parameters with a rope_type, a share and an original context.

    Args:
      given: the entries, with `rope_theta`.
      context: max_position_embeddings, from which a scaling starts if no entry names another context.
      known: the entries that may be there.

    Raises:
      UserError: the schema lacks the rope_type, or an entry is unknown or not a number.
    """
    for name in sorted(given.keys() - set(known)):
        raise UserError(
            f"config.json: {name}={text(given[name])} in the rotary parameters cannot be expressed: restore the file"
        )
    kind = given.get("rope_type", given.get("type", "default"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"config.json: rope_type={kind!r} cannot be expressed: only {', '.join(KINDS)}")
    complete: dict[str, Any] = {"partial_rotary_factor": 1.0, "original_max_position_embeddings": context} | dict(given)
    complete["rope_type"] = kind
    names = ["rope_theta", "partial_rotary_factor"]
    if kind != "default":
        names += ["factor", *OPTIONAL]
    if kind == "llama3":
        names += BANDS
    if kind in ("yarn", "llama3"):
        names.append("original_max_position_embeddings")
    for name in names:
        if not (name in OPTIONAL and complete.get(name) is None):
            complete[name] = _number(complete, name)
    if not isinstance(complete.get("truncate", True), bool):
        raise UserError(f"config.json: truncate={text(complete['truncate'])} is not true or false: restore the file")
    return complete


def read_rope(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `model.position`. `parameters` come from `rope_parameters` or `completed`."""
    kind = parameters["rope_type"]
    position: dict[str, Any] = {"kind": "rope", "theta": parameters["rope_theta"], "scaling": KINDS[kind]}
    if kind == "default":
        return position
    position["scaling_factor"] = parameters["factor"]
    if kind in ("yarn", "llama3"):
        position["original_context"] = _whole(parameters, "original_max_position_embeddings")
    if kind == "llama3":
        position |= {name: parameters[name] for name in BANDS}
    if kind == "yarn":
        position |= {name: parameters[name] for name in ("beta_fast", "beta_slow") if parameters.get(name)}
        position |= {"truncate": parameters.get("truncate", True), "attention_factor": _temperature(parameters)}
    return position


def _number(parameters: Mapping[str, Any], name: str) -> float:
    value, kind = parameters.get(name), parameters["rope_type"]
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"config.json: {name}={text(value)} of rope_type={kind!r} is not a number: restore it")
    if value <= 0 and name not in ("mscale", "mscale_all_dim", "beta_fast", "beta_slow"):
        raise UserError(f"config.json: {name}={value} of rope_type={kind!r} is not above 0: restore it")
    return float(value)


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters[name]
    if value != int(value):
        raise UserError(f"config.json: {name}={value} is not a whole number: restore it")
    return int(value)


def _temperature(parameters: Mapping[str, Any]) -> float:
    """Returns YaRN's factor of cosines and sines. DeepSeek divides it by the factor of its scores."""
    if parameters.get("attention_factor") is not None:
        return parameters["attention_factor"]
    factor = parameters["factor"]
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return yarn_scale(factor, parameters["mscale"]) / yarn_scale(factor, parameters["mscale_all_dim"])
    return yarn_scale(factor)


def yarn_scale(factor: float, multiplier: float = 1.0) -> float:
    """Computes 0.1 m ln(s) + 1 (Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.4)."""
    return 0.1 * multiplier * math.log(factor) + 1 if factor > 1 else 1.0


def only_scaling(parameters: Mapping[str, Any], *kinds: str) -> None:
    """Raises UserError unless the rope_type is one of those that a class has."""
    if parameters["rope_type"] not in kinds:
        raise UserError(
            f"config.json: rope_type={parameters['rope_type']!r} of this class cannot be expressed: only"
            f" {' or '.join(kinds)}"
        )


def whole_heads(parameters: Mapping[str, Any]) -> None:
    """Raises UserError if only a share of a head turns, for a class that turns whole heads."""
    if parameters["partial_rotary_factor"] != 1.0:
        raise UserError(
            f"config.json: partial_rotary_factor={parameters['partial_rotary_factor']} cannot be expressed: the class"
            " turns whole heads, so only 1.0"
        )


def read_partial(parameters: Mapping[str, Any], width: int) -> dict[str, Any]:
    """Returns the fields of `model.position` of a class that turns the first features of each head of this width."""
    turned = int(width * parameters["partial_rotary_factor"])
    if turned < 2 or turned % 2:
        raise UserError(
            f"config.json: partial_rotary_factor={parameters['partial_rotary_factor']} turns {turned} of {width}"
            " features of a head, and pairs turn: restore the file"
        )
    return read_rope(parameters) | {"fraction": turned / width}


def write_partial(layer: LayerSpec, context: int) -> dict[str, Any]:
    """Returns `rope_parameters` of a layer, for a class that rounds share times width down."""
    turned, width = rotated(layer), layer.attention.head_dim
    share = turned / width
    return write_rope(layer, context) | {
        "partial_rotary_factor": share if int(width * share) == turned else math.nextafter(share, 1.0)
    }


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
