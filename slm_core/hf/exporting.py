"""From a run of either twin to a folder that transformers' AutoModelForCausalLM loads."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from slm_core.config import Config
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf import FAMILIES
from slm_core.hf.family import Family
from slm_core.hf.fields import Fields
from slm_core.model.compare import Difference, differences


def choose(config: Config, wanted: str = "") -> tuple[Family, dict[str, Any]]:
    """Returns the first family that computes what a config computes, and the config.json for it.

    A family's config.json is read back: what it then stands for must be the same function. Biases and norm weights that
    it has and the config lacks are no difference: they are written as zeros and ones.

    Args:
      wanted: the model_type to use; "": any.

    Raises:
      UserError: naming the first field that no family expresses, or that the nearest one does not.
    """
    found: dict[str, list[Difference]] = {}
    for name, family in FAMILIES.items():
        if name == wanted or not wanted:
            written = family.write(config)
            try:
                back = family.read(Fields(written, name))
            except UserError:  # shapes that the class refuses
                if wanted:
                    raise
                continue
            found[name] = differences(config, back)
            if not found[name]:
                return family, written
    fields = [{difference.field for difference in lacking} for lacking in found.values()]
    nearest = min(found, key=lambda name: len(found[name]))
    nowhere = set.intersection(*fields)
    lacking = next((d for d in found[nearest] if d.field in nowhere), found[nearest][0])
    where = "" if lacking.layer is None else f" (layer {lacking.layer})"
    if nowhere:
        which = f"the {wanted} family lacks it" if wanted else "no family of Hugging Face models here has it"
        raise UserError(f"{lacking.field}={_text(lacking)}{where} cannot be exported: {which}")
    names = ", ".join(sorted(d.field for d in found[nearest]))
    raise UserError(
        f"{lacking.field}={_text(lacking)}{where} cannot be exported together with the rest: the nearest family,"
        f" {nearest}, lacks {names}"
    )


def _text(difference: Difference) -> str:
    return str(difference.value) if isinstance(difference.value, str | int | float | bool) else "..."


def convert(
    family: Family, written: dict[str, Any], weights: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the tensors of a checkpoint by their names, one rule's in memory at a time."""
    config = family.read(Fields(written, family.model_type))
    for rule in family.rules(config):
        arrays = rule.layout.to_theirs([_weight(name, weights, config) for name in rule.ours])
        yield from zip(rule.theirs, arrays, strict=True)


NORMED = {
    "attention.q_norm.norm": lambda a: a.head_dim * (a.n_heads if a.qk_norm_over == "whole" else 1),
    "attention.k_norm.norm": lambda a: a.head_dim * (a.n_kv_heads if a.qk_norm_over == "whole" else 1),
    "attention.q_latent_norm": lambda a: a.q_rank,
    "attention.kv_latent_norm": lambda a: a.kv_rank,
}
"""{norm inside a layer: how many features it scales}; the others scale d_model."""


def _weight(name: str, weights: Mapping[str, np.ndarray], config: Config) -> np.ndarray:
    """Returns a weight of ours, or what leaves the function as it is where the config has none."""
    if name in weights:
        return weights[name]
    path, _, leaf = name.rpartition(".")
    if leaf == "weight":  # of a norm without one
        return np.ones(_normed(path, config), np.float32)
    if leaf == "balance":
        return np.zeros(weights[f"{path}.router.weight"].shape[1], np.float32)
    if f"{path}.weight" in weights:
        shape = weights[f"{path}.weight"].shape
        return np.zeros((*shape[:-2], shape[-1]), np.float32)
    return np.zeros(config.model.d_model, np.float32)  # of a norm without a weight


def _normed(path: str, config: Config) -> int:
    i, _, inner = path.removeprefix("layers.").partition(".")
    return NORMED[inner](layer_specs(config.model)[int(i)].attention) if inner in NORMED else config.model.d_model
