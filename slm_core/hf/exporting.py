"""Makes the config.json and the tensors of a Hugging Face checkpoint from a run of either twin."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.hf import FAMILIES
from slm_core.hf.family import Family
from slm_core.hf.folding import FOLDED, factor_of, factors
from slm_core.hf.shapes import weight_shape
from slm_core.model.compare import Difference, differences


def choose(config: Config, model_type: str = "") -> tuple[Family, dict[str, Any]]:
    """Chooses the first family that computes the same function as a config, and writes its config.json.

    The config.json is read back, and must then be the same function. Biases and norm weights that the family has and
    the config lacks are not a difference: they are written as zeros and ones. If no family is the same, multipliers
    that `folding` can fold into weights are not a difference either.

    Args:
      model_type: the family to use; "": any.

    Raises:
      UserError: no family computes it; the first field that no family expresses, or that the nearest one does not, is
        named.
    """
    lacks: dict[str, list[Difference]] = {}
    folded: list[tuple[Family, dict[str, Any]]] = []
    for name, family in FAMILIES.items():
        if name == model_type or not model_type:
            written = family.write(config)
            try:
                back = family.config(written)
            except UserError:  # shapes that the class refuses
                if model_type:
                    raise
                continue
            lacks[name] = differences(config, back)
            if not lacks[name]:
                return family, written
            if {difference.field for difference in lacks[name]} <= FOLDED and factors(config, back) is not None:
                folded.append((family, written))
    if folded:
        return folded[0]
    raise _refusal(lacks, model_type)


def _refusal(lacks: dict[str, list[Difference]], model_type: str) -> UserError:
    """Makes the error for {family: what it cannot express}, which is never empty."""
    nearest = min(lacks, key=lambda name: len(lacks[name]))
    nowhere = set.intersection(*({difference.field for difference in each} for each in lacks.values()))
    lacking = next((d for d in lacks[nearest] if d.field in nowhere), lacks[nearest][0])
    where = "" if lacking.layer is None else f" (layer {lacking.layer})"
    if nowhere:
        which = f"the {model_type} family lacks it" if model_type else "no family of Hugging Face models here has it"
        return UserError(f"{lacking.field}={_text(lacking)}{where} cannot be exported: {which}")
    names = ", ".join(sorted(d.field for d in lacks[nearest]))
    return UserError(
        f"{lacking.field}={_text(lacking)}{where} cannot be exported together with the rest: the nearest family,"
        f" {nearest}, lacks {names}"
    )


def _text(difference: Difference) -> str:
    return str(difference.value) if isinstance(difference.value, str | int | float | bool) else "..."


def convert(
    family: Family, written: dict[str, Any], weights: Mapping[str, np.ndarray], needed: Config
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors of a checkpoint by their names, one rule's in memory at a time.

    Args:
      family, written: as `choose` chose them.
      weights: of the config `needed`, by canonical name.
    """
    config = family.config(written)
    found = factors(needed, config) or []
    for rule in family.rules(config):
        arrays = [_weight(name, weights, config) for name in rule.names]
        folded = [factor_of(name, found) for name in rule.names]
        arrays = [array if f == 1 else array * f for array, f in zip(arrays, folded, strict=True)]
        yield from zip(rule.hf_names, rule.layout.to_hf(arrays), strict=True)


def _weight(name: str, weights: Mapping[str, np.ndarray], config: Config) -> np.ndarray:
    """Returns a weight; if the config has none of this name, values that leave the function as it is."""
    if name in weights:
        return weights[name]
    filled = np.ones if name.endswith(".weight") else np.zeros  # a norm has ones, a bias has zeros
    return filled(weight_shape(name, config, len(weights["embed.weight"])), np.float32)
