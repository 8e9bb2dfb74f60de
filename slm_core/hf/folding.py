"""Folds multipliers of a model into its weights, for families that lack the multipliers.

    m f(x) of a linear layer or norm f is f with weights, and bias, times m

So residual_multiplier goes into what ends each half of a block, attention.scale into queries, embed_scale into the
embedding, and logit_multiplier, with that of muP, into the head. A tied head is the embedding, so that its part goes
into the final norm. A bias of the logits stays: it is added behind their multiplier.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from slm_core.config import Config
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.model.mup import logit_factor

FOLDED = {"model.embed_scale", "model.residual_multiplier", "model.logit_multiplier", "model.attention.scale"}
"""Fields that can be folded into weights."""
BRANCHES = {
    "sandwich": ("attention_output_norm", "mlp_output_norm"),
    "output": ("attention_norm", "mlp_norm"),
}
"""{norm.placement: the norms that end each half of a block}. Linear layers end them in all others."""
LAST = ("attention.o_proj", "mixer.o_proj", "mlp.down_proj", "mlp.shared.down_proj")


class Factor(NamedTuple):
    """The weights, and biases, whose names match `names` are multiplied by `factor`."""

    names: re.Pattern[str]
    factor: float


def factors(needed: Config, offered: Config) -> list[Factor] | None:
    """Returns what makes weights of one model compute the same in another that differs in the fields of FOLDED.

    None: the weights cannot take a multiplier over.

    Args:
      needed: the model whose weights there are.
      offered: the model that gets them.
    """
    found = list(_outside(needed, offered))
    for i, (layer, other) in enumerate(zip(layer_specs(needed.model), layer_specs(offered.model), strict=True)):
        found += [(path and rf"layers\.{i}\.{path}", factor) for path, factor in _inside(layer, other)]
    if any(path is None and factor != 1 for path, factor in found):
        return None
    return [Factor(re.compile(rf"{path}\.(weight|bias)"), factor) for path, factor in found if factor != 1]


Paths = Iterator[tuple[str | None, float]]
"""Paths of modules, or None if none can take a factor over, and their factors."""


def _outside(needed: Config, offered: Config) -> Paths:
    embedding = needed.model.embed_scale / offered.model.embed_scale
    logits = logit_factor(needed.model) / logit_factor(offered.model)
    yield "embed", embedding
    if not needed.model.tie_embeddings:
        yield "head", logits
    else:
        normed = needed.model.norm.placement != "post" and offered.model.norm.weight == "scale"
        yield "final_norm" if normed else None, logits / embedding


def _inside(layer: LayerSpec, other: LayerSpec) -> Paths:
    residual = layer.residual_multiplier / other.residual_multiplier
    norms = BRANCHES.get(layer.norm.placement, ())
    for path in norms or LAST:
        yield path if not norms or other.norm.weight == "scale" else None, residual
    yield _queries(layer, other), layer.attention.scale / other.attention.scale


def _queries(layer: LayerSpec, other: LayerSpec) -> str | None:
    """Returns the path of what makes queries, before they turn."""
    normed = {"none": "attention.q_proj"}
    if other.norm.weight == "scale":
        normed["rmsnorm"] = "attention.q_norm.norm"
    return "attention.q_up_proj" if layer.attention.kind == "mla" else normed.get(layer.attention.qk_norm)


def factor_of(name: str, found: list[Factor]) -> float:
    """Returns the factor of a weight."""
    return next((each.factor for each in found if each.names.fullmatch(name)), 1.0)
